//! DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag} — Client-Server API, "Room tagging".

use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Takes a tag from a room; one that is not there counts as taken.
pub async fn delete_tag(
    auth: Auth,
    Path((user, room, tag)): Path<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Json<Value>> {
    auth.must_be(&user)?;
    auth.handle.delete_tag(&room, &tag).await?;
    Ok(Json(json!({})))
}
