//! Who is online.

pub mod get_presence;
pub mod put_presence;

use axum::routing::get;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new().v3(
        "/presence/{userId}/status",
        get(get_presence::get_presence).put(put_presence::put_presence),
    )
}
