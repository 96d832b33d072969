//! GET /_matrix/client/v3/profile/{userId}/{keyName} — Client-Server API, "Profiles".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedUserId;
use serde_json::{Map, Value};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Anybody, Json, Path};

/// One field of a profile.
pub async fn get_profile_field(
    State(app): State<Arc<App>>,
    _: Anybody,
    Path((user, field)): Path<(OwnedUserId, String)>,
) -> Result<Json<Map<String, Value>>> {
    let value = super::fields_of(&app, &user, Some(&field)).await?.remove(&field);
    let value = value.ok_or_else(|| MatrixError::not_found("The profile has no such field"))?;
    Ok(Json(Map::from_iter([(field, value)])))
}
