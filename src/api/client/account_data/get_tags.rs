//! GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags — Client-Server API, "Room tagging".

use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// The user's own tags of a room.
pub async fn get_tags(
    auth: Auth,
    Path((user, room)): Path<(OwnedUserId, OwnedRoomId)>,
) -> Result<Json<Value>> {
    auth.must_be(&user)?;
    Ok(Json(json!({ "tags": auth.handle.tags(&room)? })))
}
