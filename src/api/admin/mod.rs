//! Administration by paths that other servers made common.

pub mod get_register_nonce;
pub mod nonces;
pub mod post_register;

use axum::routing::get;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new().at(
        "/_synapse/admin/v1/register",
        get(get_register_nonce::get_register_nonce).post(post_register::post_register),
    )
}
