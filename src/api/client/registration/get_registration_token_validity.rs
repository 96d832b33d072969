//! GET /_matrix/client/v1/register/m.login.registration_token/validity — Client-Server API,
//! "Token-authenticated registration".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Address, Json, Query};
use crate::ratelimit::Class;

/// The query.
#[derive(Deserialize)]
pub struct Asked {
    token: String,
}

/// Whether a registration token would be taken now.
pub async fn get_registration_token_validity(
    State(app): State<Arc<App>>,
    Address(address): Address,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>> {
    app.limits.address(Class::Registration, address)?;
    if super::is_closed(&app) {
        return Err(MatrixError::forbidden("Registration is closed on this server").into());
    }
    let valid = super::is_configured_token(&app, &asked.token)
        || app.users.registration_tokens().is_valid(&asked.token)?;
    Ok(Json(json!({ "valid": valid })))
}
