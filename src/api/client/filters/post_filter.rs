//! POST /_matrix/client/v3/user/{userId}/filter — Client-Server API, "Filtering".

use hearth_core::error::MatrixError;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::definition::Filter;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Stores a filter; the same filter has the same id.
pub async fn post_filter(
    auth: Auth,
    Path(user): Path<OwnedUserId>,
    Json(filter): Json<Value>,
) -> Result<Json<Value>> {
    auth.must_be(&user)?;
    Filter::deserialize(&filter)
        .map_err(|error| MatrixError::bad_json(format!("This is not a filter: {error}")))?;
    // Also what the specification's form does not have: a filter that is stored is one that can be used.
    hearth_sync::Filter::from_value(filter.clone())?;
    let id = auth.handle.put_filter(&filter).await?;
    Ok(Json(json!({ "filter_id": id })))
}
