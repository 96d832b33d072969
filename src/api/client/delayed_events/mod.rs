//! Delayed events (MSC4140): events that the server sends later.

pub mod get_delayed_event;
pub mod get_delayed_events;
pub mod post_delayed_event;
pub mod post_delayed_event_action;
pub mod put_delayed_event;
pub(crate) mod schedule;
mod sender;
mod shown;

use axum::routing::{get, post, put};

pub use sender::Sender;

use crate::routes::Routes;

/// The name of the feature before it is in the specification.
const FEATURE: &str = "org.matrix.msc4140";

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .unstable(
            FEATURE,
            "/delayed_events",
            get(get_delayed_events::get_delayed_events),
        )
        .unstable(
            FEATURE,
            "/delayed_events/{delayId}",
            get(get_delayed_event::get_delayed_event).post(post_delayed_event::post_delayed_event),
        )
        .unstable(
            FEATURE,
            "/delayed_events/{delayId}/{action}",
            post(post_delayed_event_action::post_delayed_event_action),
        )
        .unstable(
            FEATURE,
            "/rooms/{roomId}/delayed_event/{eventType}/{txnId}",
            put(put_delayed_event::put_delayed_event),
        )
}
