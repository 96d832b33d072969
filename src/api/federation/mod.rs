//! The server-server API. Each module is a section of it, with a table of its endpoints.
//!
//! A handler gets the asking server from an extractor of `origin`, a room from a function of `rooms` that checks who
//! may ask, and answers with whole events by `wire`.

pub mod directory;
pub mod events;
pub mod invites;
pub mod keys;
pub mod large;
pub mod media;
pub mod membership;
pub mod origin;
mod rooms;
pub mod server;
pub mod transactions;
pub mod users;
pub mod wire;

use crate::routes::Routes;

/// The prefix of version 1 of an endpoint.
const V1: &str = "/_matrix/federation/v1";
/// The prefix of version 2.
const V2: &str = "/_matrix/federation/v2";

/// All endpoints of the server-server API.
pub fn routes() -> Routes {
    [
        keys::routes(),
        server::routes(),
        events::routes(),
        transactions::routes(),
        membership::routes(),
        invites::routes(),
        directory::routes(),
        users::routes(),
        media::routes(),
    ]
    .into_iter()
    .fold(Routes::new(), Routes::merge)
}
