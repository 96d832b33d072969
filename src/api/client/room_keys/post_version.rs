//! POST /_matrix/client/v3/room_keys/version — Client-Server API, "Server-side key backups".

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    algorithm: String,
    auth_data: Box<RawValue>,
}

/// Makes a backup, which is then the current one.
pub async fn post_version(auth: Auth, Json(body): Json<Body>) -> Result<Json<Value>> {
    let version = auth
        .handle
        .create_backup(&body.algorithm, &body.auth_data)
        .await?;
    Ok(Json(json!({ "version": version })))
}
