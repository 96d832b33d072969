//! GET /_synapse/admin/v1/register — not in the specification; programs that make accounts on other
//! servers by a shared secret call it, Complement among them.

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Address, Json};
use crate::ratelimit::Class;

/// A nonce for one registration. Without a configured secret the endpoint does not exist.
pub async fn get_register_nonce(
    State(app): State<Arc<App>>,
    Address(address): Address,
) -> Result<Json<Value>> {
    if app.config.registration_shared_secret.is_none() {
        return Err(MatrixError::unrecognized().into());
    }
    app.limits.address(Class::Read, address)?;
    Ok(Json(json!({ "nonce": app.nonces.issue() })))
}
