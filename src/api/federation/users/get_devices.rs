//! GET /_matrix/federation/v1/user/devices/{userId} — Server-Server API, "Device Management".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedUserId;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Path};
use crate::federation::origin::Origin;

/// The devices of a user of this server that have keys, and the keys that sign them.
pub async fn get_devices(
    State(app): State<Arc<App>>,
    Path(user_id): Path<OwnedUserId>,
    Origin(_): Origin,
) -> Result<Json<Value>> {
    if !app.users.is_local(&user_id) {
        return Err(MatrixError::invalid_param("The user is not of this server").into());
    }
    let user = app.user(&user_id)?;
    // Read before the devices: a change in between is told of again, with a higher number.
    let stream = user.device_list_stream()?;
    let mut devices = Vec::new();
    for device in user.device_keys(&[])? {
        let name = device
            .keys
            .get("unsigned")
            .and_then(|unsigned| unsigned.get("device_display_name"));
        let name = name.cloned();
        let mut entry = json!({ "device_id": device.device_id, "keys": device.keys });
        if let Some(name) = name {
            entry["device_display_name"] = name;
        }
        devices.push(entry);
    }
    let mut answer = json!({ "user_id": user_id, "stream_id": stream, "devices": devices });
    let keys = user.cross_signing_keys_for(None)?;
    for (name, key) in [
        ("master_key", keys.master),
        ("self_signing_key", keys.self_signing),
    ] {
        if let Some(key) = key {
            answer[name] = Value::Object(key);
        }
    }
    Ok(Json(answer))
}
