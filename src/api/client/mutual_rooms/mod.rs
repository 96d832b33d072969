//! Which rooms two users share.

pub mod get_mutual_rooms;

use axum::routing::get;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v1("/mutual_rooms", get(get_mutual_rooms::get_mutual_rooms))
        .unstable(
            "uk.half-shot.msc2666",
            "/user/mutual_rooms",
            get(get_mutual_rooms::get_mutual_rooms_unstable),
        )
}
