//! Pushers: where the user's notifications are sent.

pub mod get_pushers;
pub mod post_pusher;
pub mod post_pusher_ack;

use axum::routing::{get, post};

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v3("/pushers", get(get_pushers::get_pushers))
        .v3("/pushers/set", post(post_pusher::post_pusher))
        .v3("/pushers/ack", post(post_pusher_ack::post_pusher_ack))
        .unstable(
            "org.matrix.msc4174",
            "/pushers/ack",
            post(post_pusher_ack::post_pusher_ack),
        )
}
