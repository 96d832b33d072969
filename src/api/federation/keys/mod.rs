//! Keys of servers, ours and, as a notary, those of others (server-server API, "Retrieving server keys"). They are given
//! to everybody: without them no signature could be checked.

pub mod get_query;
pub mod get_server;
pub mod post_query;

use axum::routing::{get, post};

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .at("/_matrix/key/v2/server", get(get_server::get_server))
        // As servers asked that named a key, where they want all of them.
        .at("/_matrix/key/v2/server/", get(get_server::get_server))
        .at("/_matrix/key/v2/server/{keyId}", get(get_server::get_server))
        .at("/_matrix/key/v2/query", post(post_query::post_query))
        .at("/_matrix/key/v2/query/{serverName}", get(get_query::get_query))
}
