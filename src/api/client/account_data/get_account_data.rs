//! GET /_matrix/client/v3/user/{userId}/account_data/{type} — Client-Server API, "Client config".

use hearth_users::PUSH_RULES;
use ruma::OwnedUserId;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::error::{ApiError, Result};
use crate::extract::{Auth, Json, Path};

/// One of the user's own global account data.
pub async fn get_account_data(
    auth: Auth,
    Path((user, kind)): Path<(OwnedUserId, String)>,
) -> Result<Json<Box<RawValue>>> {
    auth.must_be(&user)?;
    if kind == PUSH_RULES {
        // With the defaults, which are not stored.
        let content = to_raw_value(&json!({ "global": auth.handle.rules()?.set }));
        return Ok(Json(content.map_err(|error| ApiError::internal(&error))?));
    }
    let stored = auth.handle.account_data(None, &kind)?;
    Ok(Json(stored.ok_or_else(|| super::nothing_stored(&kind))?))
}
