//! PUT /_matrix/client/v3/profile/{userId}/{keyName} — Client-Server API, "Profiles".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedUserId;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Sets one field of the own profile. A new name or avatar reaches the joined rooms before the
/// answer.
pub async fn put_profile_field(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((user, field)): Path<(OwnedUserId, String)>,
    Json(mut body): Json<Map<String, Value>>,
) -> Result<Json<Value>> {
    super::may_change(&auth, &user)?;
    let Some(value) = body.remove(&field) else {
        let sentence = format!("The body has no property {field:?}");
        return Err(MatrixError::missing_param(sentence).into());
    };
    let change = auth.handle.set_profile_field(&field, value).await?;
    super::follow_up(&app, &user, &change).await?;
    Ok(Json(json!({})))
}
