//! Logging in and out.

mod answer;
pub mod get_login;
pub mod post_login;
pub mod post_login_get_token;
pub mod post_logout;
pub mod post_logout_all;
pub mod post_refresh;

pub(crate) use answer::{Device, logged_in};

use axum::routing::{get, post};

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v3("/login", get(get_login::get_login).post(post_login::post_login))
        .v1(
            "/login/get_token",
            post(post_login_get_token::post_login_get_token),
        )
        .v3("/logout", post(post_logout::post_logout))
        .v3("/logout/all", post(post_logout_all::post_logout_all))
        .v3("/refresh", post(post_refresh::post_refresh))
}
