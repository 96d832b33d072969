//! GET /_matrix/client/v3/keys/changes — Client-Server API, "End-to-end encryption".

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use hearth_sync::{Filter, StateSide, SyncRequest, SyncToken};
use hearth_users::PresenceState;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Query};

/// The two tokens.
#[derive(Deserialize)]
pub struct Between {
    from: String,
    to: String,
}

/// Whose devices changed between two tokens of `/sync`, and who was lost sight of.
pub async fn get_changes(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(between): Query<Between>,
) -> Result<Json<Value>> {
    let until = SyncToken::read(&auth.handle, &between.to)?;
    let since = SyncToken::read(&auth.handle, &between.from)?;
    let request = SyncRequest {
        user: auth.handle,
        device: auth.device,
        filter: Arc::new(Filter::default()),
        since: Some(since),
        full_state: false,
        state: StateSide::Before,
        timeout: Duration::ZERO,
        set_presence: PresenceState::Offline,
        to_device: false,
        events_max: usize::MAX,
    };
    let lists = app.sync.device_changes(&request, &until).await?;
    Ok(Json(json!({ "changed": lists.changed, "left": lists.left })))
}
