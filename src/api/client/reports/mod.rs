//! Reports to the people who run the server. Reports of rooms and events are with the rooms.

pub mod post_user_report;

use axum::routing::post;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new().v3("/users/{userId}/report", post(post_user_report::post_user_report))
}
