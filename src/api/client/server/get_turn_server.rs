//! GET /_matrix/client/v3/voip/turnServer — Client-Server API, "Voice over IP".

use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// No TURN server is configured, which clients read from the empty object.
pub async fn get_turn_server(_auth: Auth) -> Result<Json<Value>> {
    Ok(Json(json!({})))
}
