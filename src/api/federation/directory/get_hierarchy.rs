//! GET /_matrix/federation/v1/hierarchy/{roomId} — Server-Server API, "Spaces".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::Room;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::client::rooms::spaces;
use crate::error::Result;
use crate::extract::{Json, Path, Query};
use crate::federation::origin::Origin;

/// The most children that are looked at; the largest spaces have a few thousand.
const CHILDREN_MAX: usize = 5_000;

/// The query.
#[derive(Deserialize)]
pub struct Options {
    #[serde(default)]
    suggested_only: bool,
}

/// A space with its children, one level of it, as far as the asking server may know of them.
pub async fn get_hierarchy(
    State(app): State<Arc<App>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
    Origin(origin): Origin,
) -> Result<Json<Value>> {
    let not_found = || MatrixError::not_found("There is no such room, or you may not see it");
    let room = app.rooms.get(&room_id)?.filter(Room::is_resident);
    let room = room.ok_or_else(not_found)?;
    if !room.is_open_to(&origin)? {
        return Err(not_found().into());
    }
    let (mut children, mut inaccessible) = (Vec::new(), Vec::new());
    for child in spaces::children(&room, options.suggested_only)?
        .into_iter()
        .take(CHILDREN_MAX)
    {
        // Of a room that this server is not in it cannot say anything.
        let Some(found) = app.rooms.get(&child.id)?.filter(Room::is_resident) else {
            continue;
        };
        match found.is_open_to(&origin)? {
            true => children.push(spaces::summary(&found, options.suggested_only)?),
            false => inaccessible.push(child.id),
        }
    }
    Ok(Json(json!({
        "room": spaces::summary(&room, options.suggested_only)?,
        "children": children,
        "inaccessible_children": inaccessible,
    })))
}
