//! PUT /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device — MSC3814, "Dehydrating a device".

use std::collections::BTreeMap;

use hearth_users::{DehydratedDevice, KeyUpload};
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// The body.
#[derive(Deserialize)]
pub struct Body {
    device_id: OwnedDeviceId,
    device_data: Map<String, Value>,
    initial_device_display_name: Option<String>,
    device_keys: Option<Map<String, Value>>,
    one_time_keys: Option<BTreeMap<String, Value>>,
    fallback_keys: Option<BTreeMap<String, Value>>,
}

/// Makes the user's dehydrated device, in the place of the one before.
pub async fn put_dehydrated_device(auth: Auth, Json(body): Json<Body>) -> Result<Json<Value>> {
    let device = DehydratedDevice {
        device_id: body.device_id.clone(),
        device_data: body.device_data,
    };
    let upload = KeyUpload {
        device_keys: body.device_keys,
        one_time_keys: body.one_time_keys.unwrap_or_default(),
        fallback_keys: body.fallback_keys.unwrap_or_default(),
    };
    let name = body.initial_device_display_name;
    auth.handle.put_dehydrated_device(device, name, upload).await?;
    Ok(Json(json!({ "device_id": body.device_id })))
}
