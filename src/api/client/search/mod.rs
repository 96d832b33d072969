//! Searching in messages.

mod context;
pub mod post_search;

use axum::routing::post;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new().v3("/search", post(post_search::post_search))
}
