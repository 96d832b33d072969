//! DELETE /_matrix/client/v3/room_keys/keys, …/keys/{roomId} and …/keys/{roomId}/{sessionId} — Client-Server API,
//! "Server-side key backups".

use hearth_users::BackupScope;
use ruma::OwnedRoomId;
use serde_json::Value;

use super::{OfVersion, state_json};
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};

/// Deletes all keys of a backup.
pub async fn delete_keys(auth: Auth, Query(of): Query<OfVersion>) -> Result<Json<Value>> {
    delete(&auth, &of, &BackupScope::All).await
}

/// Deletes a room's keys.
pub async fn delete_room_keys(
    auth: Auth,
    Path(room): Path<OwnedRoomId>,
    Query(of): Query<OfVersion>,
) -> Result<Json<Value>> {
    delete(&auth, &of, &BackupScope::Room(room)).await
}

/// Deletes one session's key.
pub async fn delete_session_key(
    auth: Auth,
    Path((room, session)): Path<(OwnedRoomId, String)>,
    Query(of): Query<OfVersion>,
) -> Result<Json<Value>> {
    delete(&auth, &of, &BackupScope::Session(room, session)).await
}

async fn delete(auth: &Auth, of: &OfVersion, scope: &BackupScope) -> Result<Json<Value>> {
    let state = auth.handle.delete_backup_keys(&of.version, scope).await?;
    Ok(Json(state_json(&state)))
}
