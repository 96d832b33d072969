//! PUT /_matrix/client/v3/room_keys/version/{version} — Client-Server API, "Server-side key backups".

use hearth_core::error::MatrixError;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    algorithm: String,
    auth_data: Box<RawValue>,
    version: Option<String>,
}

/// Changes a backup's `auth_data`.
pub async fn put_version(
    auth: Auth,
    Path(version): Path<String>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    if body.version.is_some_and(|named| named != version) {
        return Err(MatrixError::invalid_param("`version` is not that of the path").into());
    }
    auth.handle
        .update_backup(&version, &body.algorithm, &body.auth_data)
        .await?;
    Ok(Json(json!({})))
}
