//! Keys of devices, for end-to-end encryption.

pub mod get_changes;
pub mod post_claim;
pub mod post_query;
pub mod post_upload;

use std::time::Duration;

use axum::routing::{get, post};
use hearth_core::error::MatrixError;
use ruma::OwnedDeviceId;

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

/// How long other servers are waited for where the client does not say, as the specification suggests.
const TIMEOUT_DEFAULT_MS: u64 = 10_000;

/// How long to wait for other servers.
pub(super) fn timeout(asked_ms: Option<u64>) -> Duration {
    Duration::from_millis(asked_ms.unwrap_or(TIMEOUT_DEFAULT_MS))
}
