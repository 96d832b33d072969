//! GET /_matrix/client/v3/initialSync — Client-Server API, "Syncing" (deprecated).

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_sync::{Filter, legacy};
use serde::Deserialize;

use crate::app::App;
use crate::client::large;
use crate::error::Result;
use crate::extract::{Auth, Query};

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
) -> Result<Response> {
    let mut request = super::plain_request(&auth, query.limit, 0)?;
    if query.archived {
        let mut filter = Filter::clone(&request.filter);
        filter.room.include_leave = true;
        request.filter = Arc::new(filter);
    }
    let (mut view, place) = large::sync(&app, &mut request).await?;
    let answer = legacy::initial(app.sync.rooms(), &request, &mut view)?;
    Ok(large::respond(answer.to_string().into_bytes(), place))
}
