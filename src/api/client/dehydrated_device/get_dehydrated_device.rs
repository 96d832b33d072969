//! GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device — MSC3814, "Rehydrating a device".

use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// The user's dehydrated device.
pub async fn get_dehydrated_device(auth: Auth) -> Result<Json<Value>> {
    let device = auth.handle.dehydrated_device()?.ok_or_else(super::none)?;
    Ok(Json(
        json!({ "device_id": device.device_id, "device_data": device.device_data }),
    ))
}
