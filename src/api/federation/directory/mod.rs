//! Published rooms, aliases, and spaces.

pub mod get_hierarchy;
pub mod get_public_rooms;
pub mod get_query_directory;
pub mod post_public_rooms;

use axum::routing::get;

use super::V1;
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let at = |path: &str| format!("{V1}{path}");
    Routes::new()
        .at(
            &at("/publicRooms"),
            get(get_public_rooms::get_public_rooms).post(post_public_rooms::post_public_rooms),
        )
        .at(
            &at("/query/directory"),
            get(get_query_directory::get_query_directory),
        )
        .at(&at("/hierarchy/{roomId}"), get(get_hierarchy::get_hierarchy))
}

/// A limit of nothing is none.
fn limit(limit: usize) -> Option<usize> {
    (limit > 0).then_some(limit)
}
