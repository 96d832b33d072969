//! The account itself: who am I, password, deactivation.

pub mod get_whoami;
pub mod post_deactivate;
pub mod post_password;

use axum::routing::{get, post};

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v3("/account/whoami", get(get_whoami::get_whoami))
        .v3("/account/password", post(post_password::post_password))
        .v3("/account/deactivate", post(post_deactivate::post_deactivate))
}
