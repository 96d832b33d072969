//! GET /_matrix/client/v1/rooms/{roomId}/threads — Client-Server API, "Threading".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::{Event, Rendering};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::tokens;
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::extract::{Auth, Json, Path, Query, token_unless_empty};

/// The most threads of one page.
const LIMIT_MAX: usize = 100;

/// The most threads that are looked at for one page: the user may take part in few of them.
const LOOKED_AT_MAX: usize = 1_000;

#[derive(Deserialize)]
pub struct Options {
    include: Option<String>,
    limit: Option<u64>,
    #[serde(default, deserialize_with = "token_unless_empty")]
    from: Option<String>,
}

/// The room's threads, the one with the newest event first.
pub async fn get_threads(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let mut reading = super::Reading::begin(&app, &room_id, &auth.user)?;
    let room = reading.room.clone();
    let only_own = match options.include.as_deref() {
        None | Some("all") => false,
        Some("participated") => true,
        Some(_) => return Err(MatrixError::invalid_param("include must be all or participated").into()),
    };
    // The specification has no pages without threads.
    let limit = tokens::limit(options.limit, 10, LIMIT_MAX).max(1);
    let mut before = options
        .from
        .as_deref()
        .map(|token| tokens::place(&reading, token))
        .transpose()?;
    // A token is the gap after a place; the threads wanted are those up to it.
    before = before.map(|place| hearth_rooms::Place {
        offset: place.offset.saturating_add(1),
        ..place
    });
    let mut roots = Vec::new();
    let mut next = None;
    let mut looked_at = 0;
    'pages: loop {
        let threads = room.threads(before, LIMIT_MAX)?;
        for thread in &threads {
            if looked_at == LOOKED_AT_MAX {
                next = before;
                break 'pages;
            }
            looked_at += 1;
            let Some(root) = room.event(thread.root)? else {
                continue;
            };
            let own = || -> Result<bool> {
                Ok(root.pdu.sender() == auth.user || room.takes_part(thread.root, &auth.user)?)
            };
            if !reading.viewer.may_see(&root)? || (only_own && !own()?) {
                continue;
            }
            if roots.len() == limit {
                next = before;
                break 'pages;
            }
            roots.push(match reading.viewer.ignores(&root) {
                false => root,
                // Who ignores the sender still has the thread, as a client that puts it together itself would.
                true => Arc::new(Event {
                    pdu: hearth_events::redact(room.rules(), &root.pdu)
                        .map_err(|error| ApiError::internal(&error))?,
                    ..Event::clone(&root)
                }),
            });
            before = Some(thread.place);
        }
        if threads.len() < LIMIT_MAX {
            break;
        }
        before = threads.last().map(|thread| thread.place);
    }
    let rendering = Rendering {
        device: auth.device.as_ref().map(|device| device.as_str()),
        ..Rendering::default()
    };
    let ignored = reading.viewer.ignored();
    for root in &mut roots {
        if ignored.contains(root.pdu.sender()) {
            // What others made of it stays, what the ignored user said does not.
            *root = Arc::new(room.without_content(root)?);
        }
    }
    let chunk = room.render_all(&roots, &mut reading.viewer, &rendering)?;
    let mut answer = json!({ "chunk": chunk });
    if let Some(next) = next {
        answer["next_batch"] = json!(tokens::token(next.before()));
    }
    Ok(Json(answer))
}
