//! GET /_matrix/client/v3/notifications — Client-Server API, "Push Notifications".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::{Notified, NotifiedWanted, Place, Rendering, Room};
use hearth_users::Membership;
use ruma::OwnedEventId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::invitations::invitations;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Query, token_unless_empty};

/// Notifications in an answer without a limit, and the most of them.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;

/// How many events are looked at in a room, and in all rooms together: the list is a summary of the recent past.
const LOOKED_AT_IN_ROOM_MAX: usize = 5_000;
const LOOKED_AT_MAX: usize = 20_000;

#[derive(Deserialize)]
/// The query.
pub struct Options {
    #[serde(default, deserialize_with = "token_unless_empty")]
    from: Option<String>,
    limit: Option<usize>,
    only: Option<String>,
}

/// A place in the list: the time and id of a notification.
pub(super) type Mark = (u64, OwnedEventId);

/// What the list has.
enum Entry {
    /// An event of a room that the user is in.
    Event(Room, Notified),
    /// An invitation, as it is shown.
    Invitation(Value),
}

/// The events that the user was notified of, newest first, and the invitations that stand.
///
/// NOTSPEC: nothing is stored for this list. It is made again from the recent events of the user's rooms and from the
/// rules as they are now.
pub async fn get_notifications(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let limit = options.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
    let wanted = NotifiedWanted {
        before: options.from.as_deref().map(mark).transpose()?,
        highlights: options.only.as_deref() == Some("highlight"),
        // One more says whether there is another page.
        limit: limit + 1,
    };
    let invitations = invitations(&auth.handle, &wanted)?.into_iter();
    let mut found: Vec<(Mark, Entry)> = invitations
        .map(|(mark, shown)| (mark, Entry::Invitation(shown)))
        .collect();
    found.sort_unstable_by(|one, other| other.0.cmp(&one.0));
    found.truncate(limit + 1);
    let mut left = LOOKED_AT_MAX;
    for (newest, room) in rooms_by_time(&app, &auth)? {
        // What is in all rooms that follow is older than what the page has.
        if left == 0 || found.get(limit).is_some_and(|((ts, _), ..)| *ts > newest) {
            break;
        }
        let Some(user) = room.unread_user(&auth.handle)? else {
            continue;
        };
        let mut budget = left.min(LOOKED_AT_IN_ROOM_MAX);
        left -= budget;
        for notified in room.notified(&user, &wanted, &mut budget)? {
            let pdu = &notified.event.pdu;
            let at = (pdu.origin_server_ts(), pdu.event_id.clone());
            found.push((at, Entry::Event(room.clone(), notified)));
        }
        left += budget;
        found.sort_unstable_by(|one, other| other.0.cmp(&one.0));
        found.truncate(limit + 1);
    }
    let mut answer = json!({});
    if found.len() > limit {
        let (ts, id) = match (limit.checked_sub(1), wanted.before) {
            (Some(last), _) => found[last].0.clone(),
            // A page of none ends where it begins: there, or right before the newest.
            (None, Some(before)) => before,
            (None, None) => (found[0].0.0.saturating_add(1), found[0].0.1.clone()),
        };
        answer["next_token"] = json!(format!("{ts}_{id}"));
    }
    found.truncate(limit);
    let mut list = Vec::with_capacity(found.len());
    for ((ts, _), entry) in found {
        list.push(match entry {
            Entry::Event(room, notified) => notification(&auth, ts, &room, &notified)?,
            Entry::Invitation(shown) => shown,
        });
    }
    answer["notifications"] = Value::Array(list);
    Ok(Json(answer))
}

/// The rooms that the user is in, with the times of their newest events, newest first.
fn rooms_by_time(app: &App, auth: &Auth) -> Result<Vec<(u64, Room)>> {
    let mut rooms = Vec::new();
    for entry in auth.handle.rooms(&[Membership::Join])? {
        if let Some(room) = app.rooms.get(&entry.room_id)? {
            let newest = room.event_at(Place {
                anchor: room.view().last_n,
                offset: 0,
            })?;
            rooms.push((newest.map_or(0, |event| event.pdu.origin_server_ts()), room));
        }
    }
    rooms.sort_unstable_by_key(|(newest, _)| std::cmp::Reverse(*newest));
    Ok(rooms)
}

fn notification(auth: &Auth, ts: u64, room: &Room, notified: &Notified) -> Result<Value> {
    let rendering = Rendering {
        device: auth.device.as_ref().map(|device| device.as_str()),
        ..Rendering::default()
    };
    let mut viewer = room.viewer(&auth.user)?.ignoring(auth.handle.ignored_users()?);
    let event = room.render(&notified.event, &mut viewer, &rendering)?;
    Ok(json!({
        "actions": notified.actions,
        "event": event,
        // Rules are the same for all of a user's devices.
        "profile_tag": "",
        "read": notified.read,
        "room_id": room.id(),
        "ts": ts,
    }))
}

fn mark(token: &str) -> Result<Mark, MatrixError> {
    let parts = token.split_once('_');
    let mark = parts.and_then(|(ts, id)| Some((ts.parse().ok()?, OwnedEventId::try_from(id).ok()?)));
    mark.ok_or_else(|| MatrixError::invalid_param("from is no token of this endpoint"))
}
