//! Events, the state at events, and what led to them.

pub mod get_backfill;
pub mod get_event;
pub mod get_event_auth;
pub mod get_state;
pub mod get_state_ids;
pub mod get_timestamp_to_event;
pub mod post_get_missing_events;

use axum::routing::{get, post};

use super::V1;
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let at = |path: &str| format!("{V1}{path}");
    Routes::new()
        .at(&at("/event/{eventId}"), get(get_event::get_event))
        .at(&at("/state/{roomId}"), get(get_state::get_state))
        .at(&at("/state_ids/{roomId}"), get(get_state_ids::get_state_ids))
        .at(
            &at("/event_auth/{roomId}/{eventId}"),
            get(get_event_auth::get_event_auth),
        )
        .at(&at("/backfill/{roomId}"), get(get_backfill::get_backfill))
        .at(
            &at("/get_missing_events/{roomId}"),
            post(post_get_missing_events::post_get_missing_events),
        )
        .at(
            &at("/timestamp_to_event/{roomId}"),
            get(get_timestamp_to_event::get_timestamp_to_event),
        )
}
