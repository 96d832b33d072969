//! Pushers: where the user's notifications are sent.

pub mod get_pushers;
pub mod post_pusher;

use axum::routing::{get, post};

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v3("/pushers", get(get_pushers::get_pushers))
        .v3("/pushers/set", post(post_pusher::post_pusher))
}
