//! Users of this server: profiles, devices and keys.

pub mod get_devices;
pub mod get_query_profile;
pub mod post_keys_claim;
pub mod post_keys_query;

use axum::routing::{get, post};

use super::V1;
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let at = |path: &str| format!("{V1}{path}");
    Routes::new()
        .at(&at("/query/profile"), get(get_query_profile::get_query_profile))
        .at(&at("/user/devices/{userId}"), get(get_devices::get_devices))
        .at(&at("/user/keys/query"), post(post_keys_query::post_keys_query))
        .at(&at("/user/keys/claim"), post(post_keys_claim::post_keys_claim))
}
