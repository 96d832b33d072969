//! POST /_matrix/client/v1/login/get_token — Client-Server API, "Legacy API: token-based user login".

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::client::uia::confirm_by_password;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson};

/// A token with which another client of the user can log in once, soon.
pub async fn post_login_get_token(
    State(app): State<Arc<App>>,
    auth: Auth,
    OptionalJson(body): OptionalJson<Map<String, Value>>,
) -> Result<Json<Value>> {
    let _: Map<String, Value> = confirm_by_password(&app, &auth, "POST", "/login/get_token", &body).await?;
    let (login_token, expires_in_ms) = auth.handle.issue_login_token().await?;
    Ok(Json(
        json!({ "login_token": login_token, "expires_in_ms": expires_in_ms }),
    ))
}
