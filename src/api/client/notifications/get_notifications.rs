//! GET /_matrix/client/v3/notifications — Client-Server API, "Push Notifications".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_events::push::Outcome;
use hearth_rooms::{Notified, Rendering, Room};
use hearth_users::Membership;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Query};

/// Notifications in an answer without a limit, and the most of them.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;

/// How many events are looked at in a room, and in all rooms together: the list is a summary of the recent past.
const LOOKED_AT_IN_ROOM_MAX: usize = 500;
const LOOKED_AT_MAX: usize = 20_000;

#[derive(Deserialize)]
/// The query.
pub struct Options {
    from: Option<String>,
    limit: Option<usize>,
    only: Option<String>,
}

/// A place in the list: the time and id of the last notification shown.
type Mark = (u64, String);

/// The events that the user was notified of, newest first.
///
/// NOTSPEC: nothing is stored for this list. It is made again from the recent events of the user's rooms and from the
/// rules as they are now.
pub async fn get_notifications(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let from = options.from.as_deref().map(mark).transpose()?;
    let limit = options.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let highlights = options.only.as_deref() == Some("highlight");
    let mut found: Vec<(Mark, Room, Notified)> = Vec::new();
    let entries = auth.handle.rooms(&[Membership::Join])?;
    let looked_at = (LOOKED_AT_MAX / entries.len().max(1)).clamp(1, LOOKED_AT_IN_ROOM_MAX);
    for entry in entries {
        let Some(room) = app.rooms.get(&entry.room_id)? else {
            continue;
        };
        let Some(user) = room.unread_user(&auth.handle)? else {
            continue;
        };
        for notified in room.notified(&user, looked_at)? {
            let pdu = &notified.event.pdu;
            let at = (pdu.origin_server_ts(), pdu.event_id.to_string());
            let wanted = !highlights || Outcome::of(&notified.actions).highlight;
            if wanted && from.as_ref().is_none_or(|from| at < *from) {
                found.push((at, room.clone(), notified));
            }
        }
    }
    found.sort_unstable_by(|one, other| other.0.cmp(&one.0));
    let more = found.len() > limit;
    found.truncate(limit);
    let mut answer = json!({});
    if let Some(((ts, id), ..)) = found.last().filter(|_| more) {
        answer["next_token"] = json!(format!("{ts}_{id}"));
    }
    let mut list = Vec::with_capacity(found.len());
    for ((ts, _), room, notified) in found {
        list.push(notification(&auth, ts, &room, &notified)?);
    }
    answer["notifications"] = Value::Array(list);
    Ok(Json(answer))
}

fn notification(auth: &Auth, ts: u64, room: &Room, notified: &Notified) -> Result<Value> {
    let rendering = Rendering {
        device: auth.device.as_ref().map(|device| device.as_str()),
        ..Rendering::default()
    };
    let mut viewer = room.viewer(&auth.user)?;
    let event = room.render(&notified.event, &mut viewer, &rendering)?;
    Ok(json!({
        "actions": notified.actions,
        "event": event,
        "read": notified.read,
        "room_id": room.id(),
        "ts": ts,
    }))
}

fn mark(token: &str) -> Result<Mark, MatrixError> {
    let parts = token.split_once('_');
    let mark = parts.and_then(|(ts, id)| Some((ts.parse().ok()?, id.to_owned())));
    mark.ok_or_else(|| MatrixError::invalid_param("from is no token of this endpoint"))
}
