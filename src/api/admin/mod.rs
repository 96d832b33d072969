//! Administration by paths that other servers made common.

pub mod delete_room;
pub mod federation;
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
        .at(
            "/_synapse/admin/v1/federation/destinations",
            get(federation::get_destinations::get_destinations),
        )
        .at(
            "/_synapse/admin/v1/federation/destinations/{destination}",
            get(federation::get_destination::get_destination),
        )
        .at(
            "/_synapse/admin/v1/federation/destinations/{destination}/rooms",
            get(federation::get_destination_rooms::get_destination_rooms),
        )
        .at(
            "/_synapse/admin/v1/federation/destinations/{destination}/reset_connection",
            post(federation::post_reset_connection::post_reset_connection),
        )
        .at(
            "/_hearth/admin/v1/federation/rooms_on_hold",
            get(federation::get_rooms_on_hold::get_rooms_on_hold),
        )
}
