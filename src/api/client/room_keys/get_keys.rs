//! GET /_matrix/client/v3/room_keys/keys, …/keys/{roomId} and …/keys/{roomId}/{sessionId} — Client-Server API,
//! "Server-side key backups".

use hearth_users::BackupScope;
use ruma::OwnedRoomId;
use serde_json::value::RawValue;

use super::OfVersion;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};

/// All keys of a backup.
pub async fn get_keys(auth: Auth, Query(of): Query<OfVersion>) -> Result<Json<Box<RawValue>>> {
    Ok(Json(
        auth.handle.backup_keys(&of.version, BackupScope::All).await?,
    ))
}

/// A room's keys.
pub async fn get_room_keys(
    auth: Auth,
    Path(room): Path<OwnedRoomId>,
    Query(of): Query<OfVersion>,
) -> Result<Json<Box<RawValue>>> {
    Ok(Json(
        auth.handle
            .backup_keys(&of.version, BackupScope::Room(room))
            .await?,
    ))
}

/// One session's key.
pub async fn get_session_key(
    auth: Auth,
    Path((room, session)): Path<(OwnedRoomId, String)>,
    Query(of): Query<OfVersion>,
) -> Result<Json<Box<RawValue>>> {
    let scope = BackupScope::Session(room, session);
    Ok(Json(auth.handle.backup_keys(&of.version, scope).await?))
}
