//! GET /_matrix/client/v3/sync — Client-Server API, "Syncing".

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use hearth_sync::{StateSide, SyncRequest, SyncToken, v3};
use serde::Deserialize;

use crate::app::App;
use crate::client::large;
use crate::error::Result;
use crate::extract::{Auth, Query};

/// What the query says.
#[derive(Deserialize)]
pub struct SyncQuery {
    filter: Option<String>,
    since: Option<String>,
    #[serde(default)]
    full_state: bool,
    set_presence: Option<String>,
    #[serde(default)]
    timeout: u64,
    use_state_after: Option<bool>,
    /// The name that clients used before the parameter was in the specification.
    #[serde(rename = "org.matrix.msc4222.use_state_after")]
    use_state_after_unstable: Option<bool>,
}

/// The user's news since a token; waits for some.
pub async fn get_sync(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(query): Query<SyncQuery>,
) -> Result<Response> {
    let since = query.since.as_deref().filter(|since| !since.is_empty());
    let since = since
        .map(|since| SyncToken::read(&auth.handle, since))
        .transpose()?;
    let mut request = SyncRequest {
        filter: Arc::new(super::filter(&auth.handle, query.filter.as_deref())?),
        user: auth.handle,
        device: auth.device,
        since,
        full_state: query.full_state,
        state: match (query.use_state_after, query.use_state_after_unstable) {
            (Some(true), _) => StateSide::After,
            (_, Some(true)) => StateSide::AfterUnstable,
            _ => StateSide::Before,
        },
        timeout: Duration::from_millis(query.timeout),
        set_presence: super::presence(query.set_presence.as_deref())?,
        to_device: true,
        events_max: large::EVENTS_MAX,
    };
    app.sync.acknowledge(&request).await;
    let (mut view, place) = large::sync(&app, &mut request).await?;
    Ok(large::respond(
        v3::render(&request, &mut view)?.into_bytes(),
        place,
    ))
}
