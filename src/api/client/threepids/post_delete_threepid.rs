//! POST /_matrix/client/v3/account/3pid/delete and /unbind — Client-Server API, "Adding account
//! administrative contact information".

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// The request's body; both fields are required.
#[derive(Deserialize)]
#[expect(dead_code, reason = "the fields are only checked to be there")]
pub struct Body {
    medium: String,
    address: String,
}

/// What is not there counts as removed; there is no identity server to unbind it from.
pub async fn post_delete_threepid(_auth: Auth, Json(_): Json<Body>) -> Result<Json<Value>> {
    Ok(Json(json!({ "id_server_unbind_result": "no-support" })))
}
