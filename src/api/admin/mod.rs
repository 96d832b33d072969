//! Administration by paths that other servers made common.

pub mod delete_room;
pub mod get_register_nonce;
pub mod nonces;
pub mod post_register;
pub mod post_send_server_notice;
pub mod put_send_server_notice;
pub(crate) mod server_notices;

use axum::routing::{delete, get, post, put};

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .at(
            "/_synapse/admin/v1/register",
            get(get_register_nonce::get_register_nonce).post(post_register::post_register),
        )
        .at(
            "/_synapse/admin/v1/rooms/{roomId}",
            delete(delete_room::delete_room),
        )
        .at(
            "/_synapse/admin/v1/send_server_notice",
            post(post_send_server_notice::post_send_server_notice),
        )
        .at(
            "/_synapse/admin/v1/send_server_notice/{txnId}",
            put(put_send_server_notice::put_send_server_notice),
        )
}
