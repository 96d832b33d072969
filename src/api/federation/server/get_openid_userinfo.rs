//! GET /_matrix/federation/v1/openid/userinfo — Server-Server API, "OpenID".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Query};

/// The query.
#[derive(Deserialize)]
pub struct Options {
    access_token: Option<String>,
}

/// Whose OpenID token this is. Whoever has the token may ask.
pub async fn get_openid_userinfo(
    State(app): State<Arc<App>>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let token = options.access_token.ok_or_else(MatrixError::missing_token)?;
    let unknown = || MatrixError::unknown_token("Access token unknown or expired", false);
    let user = app.users.openid_user(&token)?.ok_or_else(unknown)?;
    Ok(Json(json!({ "sub": user })))
}
