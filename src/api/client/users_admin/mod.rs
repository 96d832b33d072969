//! Server administration: what administrators do with accounts.

pub mod get_lock;
pub mod get_suspend;
pub mod get_whois;
pub mod put_lock;
pub mod put_suspend;
mod target;

use axum::routing::get;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v3("/admin/whois/{userId}", get(get_whois::get_whois))
        .v1(
            "/admin/lock/{userId}",
            get(get_lock::get_lock).put(put_lock::put_lock),
        )
        .v1(
            "/admin/suspend/{userId}",
            get(get_suspend::get_suspend).put(put_suspend::put_suspend),
        )
}
