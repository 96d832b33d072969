//! Messages to devices.

pub mod put_send_to_device;

use axum::routing::put;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new().v3(
        "/sendToDevice/{eventType}/{txnId}",
        put(put_send_to_device::put_send_to_device),
    )
}
