//! GET /_matrix/client/v3/profile/{userId} — Client-Server API, "Profiles".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedUserId;
use serde_json::{Map, Value};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Anybody, Json, Path};

/// All fields of a profile. Anybody may ask: clients show profiles before a login, too.
pub async fn get_profile(
    State(app): State<Arc<App>>,
    _: Anybody,
    Path(user): Path<OwnedUserId>,
) -> Result<Json<Map<String, Value>>> {
    Ok(Json(super::fields_of(&app, &user, None).await?))
}
