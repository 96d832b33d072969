//! GET /_matrix/client/v1/auth_metadata — Client-Server API, "OAuth 2.0 API: server metadata".

use hearth_core::error::MatrixError;

use crate::error::{ApiError, Result};
use crate::extract::Json;

/// There is no OAuth here; by this answer clients learn to use the legacy authentication API.
pub async fn get_auth_metadata() -> Result<Json<()>> {
    Err(ApiError::from(MatrixError::unrecognized()))
}
