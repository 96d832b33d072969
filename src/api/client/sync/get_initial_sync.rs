//! GET /_matrix/client/v3/initialSync — Client-Server API, "Syncing" (deprecated).

use std::sync::Arc;

use axum::extract::State;
use hearth_sync::{Filter, legacy};
use serde::Deserialize;
use serde_json::Value;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Query};

/// What the query says.
#[derive(Deserialize)]
pub struct InitialSyncQuery {
    limit: Option<u64>,
    /// Whether rooms that the user has left are shown too.
    #[serde(default)]
    archived: bool,
}

/// The user's rooms and settings, whole.
pub async fn get_initial_sync(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(query): Query<InitialSyncQuery>,
) -> Result<Json<Value>> {
    let mut request = super::plain_request(&auth, query.limit, 0)?;
    if query.archived {
        let mut filter = Filter::clone(&request.filter);
        filter.room.include_leave = true;
        request.filter = Arc::new(filter);
    }
    let mut view = app.sync.sync(&request).await?;
    Ok(Json(legacy::initial(app.sync.rooms(), &request, &mut view)?))
}
