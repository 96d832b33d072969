//! GET /_matrix/federation/v1/version — Server-Server API, "Server implementation".

use serde_json::{Value, json};

use crate::extract::Json;

/// The name and version of the program. Everybody may know it.
pub async fn get_version() -> Json<Value> {
    Json(json!({ "server": { "name": "Hearth", "version": env!("CARGO_PKG_VERSION") } }))
}
