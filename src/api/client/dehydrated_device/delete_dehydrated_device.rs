//! DELETE /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device — MSC3814, "Deleting a dehydrated device".

use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// Removes the user's dehydrated device. No password is asked for: nobody is logged in there.
pub async fn delete_dehydrated_device(auth: Auth) -> Result<Json<Value>> {
    let deleted = auth.handle.delete_dehydrated_device().await?;
    let device_id = deleted.ok_or_else(super::none)?;
    Ok(Json(json!({ "device_id": device_id })))
}
