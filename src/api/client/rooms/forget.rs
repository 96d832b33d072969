//! POST /_matrix/client/v3/rooms/{roomId}/forget — Client-Server API, "Leaving rooms".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::Membership;
use hearth_users::Membership as Outside;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Takes a room that the user has left out of the user's history.
pub async fn post_forget(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<Value>> {
    let must_leave = || MatrixError::unknown("You must leave the room before you can forget it");
    if let Some(room) = app.rooms.get(&room_id)? {
        let membership = room.membership(&auth.user)?;
        if matches!(
            membership,
            Membership::Join | Membership::Invite | Membership::Knock
        ) {
            return Err(must_leave().into());
        }
    }
    match auth.handle.room(&room_id)? {
        None => return Err(MatrixError::not_found("You never were in this room").into()),
        // An invitation to a room that is not here, or a knock on one.
        Some(entry) if matches!(entry.membership, Outside::Invite | Outside::Knock) => {
            return Err(must_leave().into());
        }
        Some(_) => {}
    }
    auth.handle.forget_room(&room_id).await?;
    Ok(Json(json!({})))
}
