//! Sliding sync (MSC4186): the merged wire, and the unstable one that matrix-rust-sdk speaks.

mod body;
pub mod post_sync_unstable;
pub mod post_sync_v4;

use axum::routing::post;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .unstable(
            "org.matrix.simplified_msc3575",
            "/sync",
            post(post_sync_unstable::post_sync_unstable),
        )
        .at("/_matrix/client/v4/sync", post(post_sync_v4::post_sync_v4))
}
