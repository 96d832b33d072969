//! DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/rooms/{roomId}/account_data/{type} — MSC3391.

use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Deletes one of the user's own account data for a room; what is not there counts as deleted.
pub async fn delete_room_account_data(
    auth: Auth,
    Path((user, room, kind)): Path<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Json<Value>> {
    auth.must_be(&user)?;
    super::may_be_written(&kind)?;
    auth.handle.delete_account_data(Some(&room), &kind).await?;
    Ok(Json(json!({})))
}
