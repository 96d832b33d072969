//! GET /_matrix/client/v3/thirdparty/location, /thirdparty/location/{protocol}, /thirdparty/user and
//! /thirdparty/user/{protocol} — Client-Server API, "Third-party networks".

use serde_json::Value;

use crate::extract::{Auth, Json};

/// No application service is asked for its rooms and users yet, so nothing is found.
pub async fn get_thirdparty_places(_auth: Auth) -> Json<Vec<Value>> {
    Json(Vec::new())
}
