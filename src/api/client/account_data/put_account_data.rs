//! PUT /_matrix/client/v3/user/{userId}/account_data/{type} — Client-Server API, "Client config".

use ruma::OwnedUserId;
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json, Path, RawJson};

/// Writes one of the user's own global account data.
pub async fn put_account_data(
    auth: Auth,
    Path((user, kind)): Path<(OwnedUserId, String)>,
    content: RawJson,
) -> Result<Json<Value>> {
    auth.must_be(&user)?;
    super::may_be_written(&kind)?;
    let content = super::raw(&content)?;
    match super::is_empty(content) {
        true => auth.handle.delete_account_data(None, &kind).await?,
        false => auth.handle.set_account_data(None, &kind, content).await?,
    }
    Ok(Json(json!({})))
}
