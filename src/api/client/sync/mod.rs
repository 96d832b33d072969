//! Following what happens: `/sync`, and the endpoints before it that old clients still call.

pub mod get_events;
pub mod get_events_event;
pub mod get_initial_sync;
pub mod get_room_initial_sync;
pub mod get_sync;

use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use hearth_core::error::MatrixError;
use hearth_sync::{Filter, StateSide, SyncRequest};
use hearth_users::{PresenceState, User};
use serde_json::json;

use crate::client::large;
use crate::error::Result;
use crate::extract::Auth;
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v3("/sync", get(get_sync::get_sync))
        .v3("/events", get(get_events::get_events))
        .v3("/events/{eventId}", get(get_events_event::get_events_event))
        .v3("/initialSync", get(get_initial_sync::get_initial_sync))
        .v3(
            "/rooms/{roomId}/initialSync",
            get(get_room_initial_sync::get_room_initial_sync),
        )
}

/// The filter that a request names: by id, or written out. An empty name is none.
fn filter(user: &User, named: Option<&str>) -> Result<Filter> {
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        return Ok(Filter::default());
    };
    if named.trim_start().starts_with('{') {
        return Ok(Filter::parse(named)?);
    }
    let stored = user.filter(named)?.ok_or(hearth_sync::Error::NoFilter)?;
    Ok(Filter::from_value(stored)?)
}

/// The state that `set_presence` names.
pub(crate) fn presence(named: Option<&str>) -> Result<PresenceState, MatrixError> {
    let unknown = || MatrixError::invalid_param("set_presence is offline, online or unavailable");
    named.map_or(Ok(PresenceState::Online), |name| {
        PresenceState::parse(name).ok_or_else(unknown)
    })
}

/// A request of the older endpoints: everything, with so many messages of each room.
fn plain_request(auth: &Auth, limit: Option<u64>, timeout_ms: u64) -> Result<SyncRequest> {
    let filter = Filter::from_value(json!({ "room": { "timeline": { "limit": limit } } }))?;
    Ok(SyncRequest {
        user: auth.handle.clone(),
        device: auth.device.clone(),
        filter: Arc::new(filter),
        since: None,
        full_state: false,
        state: StateSide::Before,
        timeout: Duration::from_millis(timeout_ms),
        set_presence: PresenceState::Online,
        to_device: false,
        events_max: large::EVENTS_MAX,
    })
}
