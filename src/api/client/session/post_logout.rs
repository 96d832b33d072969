//! POST /_matrix/client/v3/logout — Client-Server API, "Legacy API: logout".

use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{AuthEvenIfLocked, Json};

/// Ends this session and deletes its device.
pub async fn post_logout(AuthEvenIfLocked(auth): AuthEvenIfLocked) -> Result<Json<Value>> {
    auth.handle.logout(auth.device()?).await?;
    Ok(Json(json!({})))
}
