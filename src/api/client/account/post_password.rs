//! POST /_matrix/client/v3/account/password — Client-Server API, "Password management".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::client::uia::confirm_by_password;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson};

/// The request's body.
#[derive(Deserialize)]
struct Body {
    new_password: Option<String>,
    logout_devices: Option<bool>,
}

/// Sets a new password and, unless the client says otherwise, ends all other sessions.
pub async fn post_password(
    State(app): State<Arc<App>>,
    auth: Auth,
    OptionalJson(body): OptionalJson<Map<String, Value>>,
) -> Result<Json<Value>> {
    // Told before a person goes to the trouble of the authentication.
    if let Some(password) = body.get("new_password").and_then(Value::as_str) {
        app.users.check_password_rules(password)?;
    }
    let body: Body = confirm_by_password(&app, &auth, "POST", "/account/password", &body).await?;
    let Some(password) = body.new_password else {
        return Err(MatrixError::missing_param("The field `new_password` is missing").into());
    };
    let logout_others = body.logout_devices.unwrap_or(true);
    auth.handle
        .set_password(&password, logout_others, auth.device.as_deref())
        .await?;
    Ok(Json(json!({})))
}
