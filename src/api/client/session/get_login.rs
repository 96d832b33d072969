//! GET /_matrix/client/v3/login — Client-Server API, "Legacy API: login".

use serde_json::{Value, json};

use crate::extract::Json;

/// The ways to log in.
pub async fn get_login() -> Json<Value> {
    Json(json!({ "flows": [
        { "type": "m.login.password" },
        { "type": "m.login.token", "get_login_token": true },
        { "type": "m.login.application_service" },
    ] }))
}
