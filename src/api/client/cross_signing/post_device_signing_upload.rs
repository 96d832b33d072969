//! POST /_matrix/client/v3/keys/device_signing/upload — Client-Server API, "Cross-signing".

use std::sync::Arc;

use axum::extract::State;
use hearth_users::CrossSigningUpload;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::client::uia::confirm_by_password;
use crate::error::Result;
use crate::extract::{Auth, Json};

/// The keys that a request may bring.
const KEYS: [&str; 3] = ["master_key", "self_signing_key", "user_signing_key"];

/// Stores cross-signing keys. The first ones, and the same ones again, need no confirmation.
pub async fn post_device_signing_upload(
    State(app): State<Arc<App>>,
    auth: Auth,
    Json(body): Json<Map<String, Value>>,
) -> Result<Json<Value>> {
    // A client may leave the keys to the authentication session when it confirms.
    let is_confirmation_only = body.contains_key("auth") && !KEYS.iter().any(|key| body.contains_key(*key));
    if !is_confirmation_only {
        let outcome = auth.handle.upload_cross_signing_keys(&body, false).await?;
        if outcome == CrossSigningUpload::Done {
            return Ok(Json(json!({})));
        }
    }
    let path = "/keys/device_signing/upload";
    let body: Map<String, Value> = confirm_by_password(&app, &auth, "POST", path, &body).await?;
    auth.handle.upload_cross_signing_keys(&body, true).await?;
    Ok(Json(json!({})))
}
