//! What clients ask about the server itself.

pub mod get_auth_metadata;
pub mod get_capabilities;
pub mod get_thirdparty_protocols;
pub mod get_turn_server;
pub mod get_versions;

use axum::routing::get;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .at("/_matrix/client/versions", get(get_versions::get_versions))
        .v1("/auth_metadata", get(get_auth_metadata::get_auth_metadata))
        .v3("/capabilities", get(get_capabilities::get_capabilities))
        .v3("/voip/turnServer", get(get_turn_server::get_turn_server))
        .v3(
            "/thirdparty/protocols",
            get(get_thirdparty_protocols::get_thirdparty_protocols),
        )
}
