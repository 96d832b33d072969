//! What the user was notified of.

pub mod get_notifications;
mod invitations;

use axum::routing::get;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new().v3("/notifications", get(get_notifications::get_notifications))
}
