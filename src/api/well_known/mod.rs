//! The documents under `/.well-known/matrix/`.

pub mod get_client;
pub mod get_server;
pub mod get_support;

use axum::routing::get;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .at("/.well-known/matrix/client", get(get_client::get_client))
        .at("/.well-known/matrix/server", get(get_server::get_server))
        .at("/.well-known/matrix/support", get(get_support::get_support))
}
