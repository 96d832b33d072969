//! POST /_matrix/client/v3/logout/all — Client-Server API, "Legacy API: logout".

use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{AuthEvenIfLocked, Json};

/// Ends all of the user's sessions and deletes their devices.
pub async fn post_logout_all(AuthEvenIfLocked(auth): AuthEvenIfLocked) -> Result<Json<Value>> {
    auth.handle.logout_all().await?;
    Ok(Json(json!({})))
}
