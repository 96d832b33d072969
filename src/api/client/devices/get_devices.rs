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
pub(super) fn device_json(device: &Device) -> Value {
    let mut json = json!({ "device_id": device.device_id });
    if let Some(name) = &device.display_name {
        json["display_name"] = name.as_str().into();
    }
    if let Some(ip) = &device.last_seen_ip {
        json["last_seen_ip"] = ip.as_str().into();
    }
    if let Some(ts) = device.last_seen_ts {
        json["last_seen_ts"] = ts.into();
    }
    json
}
