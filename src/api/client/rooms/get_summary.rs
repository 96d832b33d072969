//! GET /_matrix/client/v1/room_summary/{roomIdOrAlias} — Client-Server API, "Room summaries".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::{Membership, Room};
use ruma::{OwnedRoomOrAliasId, RoomId};
use serde_json::{Value, json};

use super::elsewhere::{Via, reach};
use super::far_spaces::FarSpaces;
use super::spaces;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, OptionalAuth, Path, Query};

/// What is shown of a room to somebody who might join it.
pub async fn get_summary(
    State(app): State<Arc<App>>,
    OptionalAuth(auth): OptionalAuth,
    Path(target): Path<OwnedRoomOrAliasId>,
    Query(via): Query<Via>,
) -> Result<Json<Value>> {
    let not_found = || MatrixError::not_found("There is no such room, or you may not see it");
    let here = match <&RoomId>::try_from(&*target) {
        Ok(room_id) => app.rooms.get(room_id)?.filter(Room::is_decided_here),
        Err(_) => None,
    };
    let room = match (here, &auth) {
        (Some(room), _) => room,
        // Other servers are asked for users of this one alone.
        (None, Some(auth)) => {
            let reach = reach(&app, auth, &target, via).await?;
            match app.rooms.get(&reach.room_id)?.filter(Room::is_decided_here) {
                Some(room) => room,
                None => {
                    let mut far = FarSpaces::new();
                    let found = far.room(&app, &reach.room_id, &reach.via, false).await;
                    let found = found.ok_or_else(not_found)?;
                    if !found.is_shown_to(auth)? {
                        return Err(not_found().into());
                    }
                    let mut summary = found.summary();
                    if let Some(entry) = auth.handle.room(&reach.room_id)? {
                        summary["membership"] = json!(entry.membership);
                    }
                    return Ok(Json(summary));
                }
            }
        }
        (None, None) => {
            let room_id = app.room_id_of(&target)?;
            let room = app.rooms.get(&room_id)?.filter(Room::is_decided_here);
            room.ok_or_else(not_found)?
        }
    };
    let open = room.is_open_to_all()?;
    let mut membership = None;
    if let Some(auth) = &auth {
        let found = room.membership(&auth.user)?;
        let inside = matches!(found, Membership::Join | Membership::Invite);
        if !open && !inside && !room.may_join_as_member(&auth.user)? {
            return Err(not_found().into());
        }
        membership = (found != Membership::None).then(|| found.word());
    } else if !open {
        return Err(not_found().into());
    }
    let mut summary = spaces::full_summary(&room)?;
    if let Some(membership) = membership {
        summary["membership"] = json!(membership);
    }
    Ok(Json(summary))
}
