//! The user's own devices.

pub mod delete_device;
pub mod get_device;
pub mod get_devices;
pub mod post_delete_devices;
pub mod put_device;

use axum::routing::{get, post};

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let device = get(get_device::get_device)
        .put(put_device::put_device)
        .delete(delete_device::delete_device);
    Routes::new()
        .v3("/devices", get(get_devices::get_devices))
        .v3("/devices/{deviceId}", device)
        .v3("/delete_devices", post(post_delete_devices::post_delete_devices))
}
