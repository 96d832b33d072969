//! GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type} — Client-Server API, "Client config".

use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::value::RawValue;

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// One of the user's own account data for a room.
pub async fn get_room_account_data(
    auth: Auth,
    Path((user, room, kind)): Path<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Json<Box<RawValue>>> {
    auth.must_be(&user)?;
    let stored = auth.handle.account_data(Some(&room), &kind)?;
    Ok(Json(stored.ok_or_else(|| super::nothing_stored(&kind))?))
}
