//! DELETE /_matrix/client/v3/room_keys/version/{version} — Client-Server API, "Server-side key backups".

use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Deletes a backup with its keys; one that was deleted before counts as deleted.
pub async fn delete_version(auth: Auth, Path(version): Path<String>) -> Result<Json<Value>> {
    auth.handle.delete_backup(&version).await?;
    Ok(Json(json!({})))
}
