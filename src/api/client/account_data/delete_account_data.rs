//! DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/account_data/{type} — MSC3391.

use ruma::OwnedUserId;
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Deletes one of the user's own global account data; what is not there counts as deleted.
pub async fn delete_account_data(
    auth: Auth,
    Path((user, kind)): Path<(OwnedUserId, String)>,
) -> Result<Json<Value>> {
    auth.must_be(&user)?;
    super::may_be_written(&kind)?;
    auth.handle.delete_account_data(None, &kind).await?;
    Ok(Json(json!({})))
}
