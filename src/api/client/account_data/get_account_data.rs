//! GET /_matrix/client/v3/user/{userId}/account_data/{type} — Client-Server API, "Client config".

use ruma::OwnedUserId;
use serde_json::value::RawValue;

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// One of the user's own global account data.
pub async fn get_account_data(
    auth: Auth,
    Path((user, kind)): Path<(OwnedUserId, String)>,
) -> Result<Json<Box<RawValue>>> {
    auth.must_be(&user)?;
    let stored = auth.handle.account_data(None, &kind)?;
    Ok(Json(stored.ok_or_else(|| super::nothing_stored(&kind))?))
}
