//! GET /_matrix/client/v3/initialSync — Client-Server API, "Syncing" (deprecated).

use std::sync::Arc;

use axum::extract::State;
use hearth_sync::legacy;
use serde::Deserialize;
use serde_json::Value;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Query};

/// What the query says.
#[derive(Deserialize)]
pub struct InitialSyncQuery {
    limit: Option<u64>,
}

/// The user's rooms and settings, whole.
pub async fn get_initial_sync(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(query): Query<InitialSyncQuery>,
) -> Result<Json<Value>> {
    let request = super::plain_request(&auth, query.limit, 0)?;
    let mut view = app.sync.sync(&request).await?;
    Ok(Json(legacy::initial(app.sync.rooms(), &request, &mut view)?))
}
