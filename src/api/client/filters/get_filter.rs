//! GET /_matrix/client/v3/user/{userId}/filter/{filterId} — Client-Server API, "Filtering".

use hearth_core::error::MatrixError;
use ruma::OwnedUserId;
use serde_json::Value;

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// A filter that the user stored.
pub async fn get_filter(auth: Auth, Path((user, id)): Path<(OwnedUserId, String)>) -> Result<Json<Value>> {
    auth.must_be(&user)?;
    let filter = auth.handle.filter(&id)?;
    Ok(Json(filter.ok_or_else(|| {
        MatrixError::not_found("There is no such filter")
    })?))
}
