//! GET /_matrix/federation/v1/hierarchy/{roomId} — Server-Server API, "Spaces".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::Room;
use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::app::App;
use crate::client::rooms::spaces;
use crate::error::Result;
use crate::extract::{Json, Path, Query};
use crate::federation::origin::Origin;

/// An answer that is so large gets no further child: other servers read no more of it.
const FULL_BYTES: usize = 8 << 20;

/// The query.
#[derive(Deserialize)]
pub struct Options {
    #[serde(default)]
    suggested_only: bool,
}

/// The answer.
#[derive(Serialize)]
pub struct Answer {
    room: Box<RawValue>,
    children: Vec<Box<RawValue>>,
    inaccessible_children: Vec<OwnedRoomId>,
}

/// A space with its children, one level of it, as far as the asking server may know of them.
pub async fn get_hierarchy(
    State(app): State<Arc<App>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
    Origin(origin): Origin,
) -> Result<Json<Answer>> {
    let not_found = || MatrixError::not_found("There is no such room, or you may not see it");
    let room = app.rooms.get(&room_id)?.filter(Room::is_resident);
    let room = room.ok_or_else(not_found)?;
    if !room.is_open_to(&origin)? {
        return Err(not_found().into());
    }
    let mut budget = spaces::Budget::new();
    let mut children_of =
        |room: &Room| spaces::children(room, &app.server_name, options.suggested_only, &mut budget);
    let below = children_of(&room)?;
    let mut answer = Answer {
        room: spaces::with_children(&room, &below)?,
        children: Vec::new(),
        inaccessible_children: Vec::new(),
    };
    let mut bytes = answer.room.get().len();
    for child in below {
        if bytes >= FULL_BYTES {
            break;
        }
        // Of a room that this server is not in it cannot say anything.
        let Some(found) = app.rooms.get(&child.id)?.filter(Room::is_resident) else {
            continue;
        };
        match found.is_open_to(&origin)? {
            true => {
                let shown = spaces::with_children(&found, &children_of(&found)?)?;
                bytes += shown.get().len();
                answer.children.push(shown);
            }
            false => answer.inaccessible_children.push(child.id),
        }
    }
    Ok(Json(answer))
}
