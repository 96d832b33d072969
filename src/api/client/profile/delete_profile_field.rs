//! DELETE /_matrix/client/v3/profile/{userId}/{keyName} — Client-Server API, "Profiles".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedUserId;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Removes one field of the own profile; one that is not there counts as removed.
pub async fn delete_profile_field(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((user, field)): Path<(OwnedUserId, String)>,
) -> Result<Json<Value>> {
    super::may_change(&auth, &user)?;
    let change = auth.handle.delete_profile_field(&field).await?;
    super::follow_up(&app, &user, &change).await?;
    Ok(Json(json!({})))
}
