//! Keys of devices, for end-to-end encryption.

pub mod get_changes;
pub mod post_claim;
pub mod post_query;
pub mod post_upload;

use axum::routing::{get, post};
use hearth_core::error::{MatrixError, errcode};
use ruma::OwnedDeviceId;
use serde_json::{Value, json};

use crate::extract::Auth;
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v3("/keys/upload", post(post_upload::post_upload))
        .v3("/keys/query", post(post_query::post_query))
        .v3("/keys/claim", post(post_claim::post_claim))
        .v3("/keys/changes", get(get_changes::get_changes))
}

/// The device that asks; an application service may act without one.
pub(super) fn own_device(auth: &Auth) -> Result<&OwnedDeviceId, MatrixError> {
    let device = auth.device.as_ref();
    device.ok_or_else(|| MatrixError::invalid_param("This needs a device, and the token has none"))
}

/// What stands for a server whose users' keys are not to be had: until there is federation, for every other one.
pub(super) fn unreachable() -> Value {
    json!({ "errcode": errcode::UNKNOWN, "error": "The server cannot be reached", "status": 503 })
}
