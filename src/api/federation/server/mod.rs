//! About the server itself.

pub mod get_openid_userinfo;
pub mod get_version;

use axum::routing::get;

use super::V1;
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .at(&format!("{V1}/version"), get(get_version::get_version))
        .at(
            &format!("{V1}/openid/userinfo"),
            get(get_openid_userinfo::get_openid_userinfo),
        )
}
