//! Filters that clients store to name them in `/sync`.

pub mod definition;
pub mod get_filter;
pub mod post_filter;

use axum::routing::{get, post};

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v3("/user/{userId}/filter", post(post_filter::post_filter))
        .v3("/user/{userId}/filter/{filterId}", get(get_filter::get_filter))
}
