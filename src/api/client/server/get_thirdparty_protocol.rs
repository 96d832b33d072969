//! GET /_matrix/client/v3/thirdparty/protocol/{protocol} — Client-Server API, "Third-party networks".

use hearth_core::error::MatrixError;
use serde_json::Value;

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// No application service is asked for its protocols yet, so none is known.
pub async fn get_thirdparty_protocol(_auth: Auth, Path(protocol): Path<String>) -> Result<Json<Value>> {
    let sentence = format!("No application service here bridges to {protocol:?}");
    Err(MatrixError::not_found(sentence).into())
}
