//! Reports to the people who run the server.

pub mod post_event_report;
pub mod post_room_report;
pub mod post_user_report;

use axum::routing::post;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v3("/users/{userId}/report", post(post_user_report::post_user_report))
        .v3("/rooms/{roomId}/report", post(post_room_report::post_room_report))
        .v3(
            "/rooms/{roomId}/report/{eventId}",
            post(post_event_report::post_event_report),
        )
}
