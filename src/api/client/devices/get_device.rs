//! GET /_matrix/client/v3/devices/{deviceId} — Client-Server API, "Device management".

use hearth_core::error::MatrixError;
use ruma::OwnedDeviceId;
use serde_json::Value;

use super::get_devices::device_json;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// One of the user's devices.
pub async fn get_device(auth: Auth, Path(id): Path<OwnedDeviceId>) -> Result<Json<Value>> {
    let device = auth.handle.device(&id)?;
    let device = device.ok_or_else(|| MatrixError::not_found("You have no such device"))?;
    Ok(Json(device_json(&device)))
}
