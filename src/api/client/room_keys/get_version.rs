//! GET /_matrix/client/v3/room_keys/version and …/version/{version} — Client-Server API, "Server-side key backups".

use hearth_users::Backup;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// The answer.
#[derive(Serialize)]
pub struct Answer {
    algorithm: String,
    auth_data: Box<RawValue>,
    count: u64,
    etag: String,
    version: String,
}

/// The current backup.
pub async fn get_current_version(auth: Auth) -> Result<Json<Answer>> {
    Ok(Json(answer(auth.handle.backup(None)?)))
}

/// A backup.
pub async fn get_version(auth: Auth, Path(version): Path<String>) -> Result<Json<Answer>> {
    Ok(Json(answer(auth.handle.backup(Some(&version))?)))
}

fn answer(backup: Backup) -> Answer {
    Answer {
        algorithm: backup.algorithm,
        auth_data: backup.auth_data,
        count: backup.state.count,
        etag: backup.state.etag,
        version: backup.version,
    }
}
