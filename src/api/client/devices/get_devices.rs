//! GET /_matrix/client/v3/devices — Client-Server API, "Device management".

use hearth_users::Device;
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// All of the user's devices.
pub async fn get_devices(auth: Auth) -> Result<Json<Value>> {
    let devices: Vec<Value> = auth.handle.devices()?.iter().map(device_json).collect();
    Ok(Json(json!({ "devices": devices })))
}

/// A device as its owner sees it.
// NOTSPEC: what is not known is null instead of absent. matrix-nio, and what is made with it, reads no list of devices
// in which it is absent.
pub(super) fn device_json(device: &Device) -> Value {
    json!({
        "device_id": device.device_id,
        "display_name": device.display_name,
        "last_seen_ip": device.last_seen_ip,
        "last_seen_ts": device.last_seen_ts,
    })
}
