//! GET /_matrix/client/v3/thirdparty/protocols — Client-Server API, "Third-party networks".

use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// No application service is asked for its protocols yet, so there are none.
pub async fn get_thirdparty_protocols(_auth: Auth) -> Result<Json<Value>> {
    Ok(Json(json!({})))
}
