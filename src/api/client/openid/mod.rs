//! Tokens by which another service learns who somebody is.

pub mod post_request_token;

use axum::routing::post;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new().v3(
        "/user/{userId}/openid/request_token",
        post(post_request_token::post_request_token),
    )
}
