//! What application services call.

pub mod directory_list;
pub mod ping;

use axum::routing::{post, put};

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v1("/appservice/{appserviceId}/ping", post(ping::ping))
        .v3(
            "/directory/list/appservice/{networkId}/{roomId}",
            put(directory_list::put_directory_list).delete(directory_list::delete_directory_list),
        )
}
