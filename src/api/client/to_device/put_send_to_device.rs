//! PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId} — Client-Server API, "Send-to-Device messaging".

use std::collections::BTreeMap;

use hearth_core::error::MatrixError;
use hearth_core::limits::{ID_MAX_BYTES, TO_DEVICE_CONTENT_MAX_BYTES};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::client::rooms::txn_device;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    /// The contents by user and device; the device `*` is all of them.
    messages: BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>,
}

/// Sends messages to devices: once for each transaction. The answer comes when every local inbox has them. Who is
/// suspended may: devices verify each other by them.
pub async fn put_send_to_device(
    auth: Auth,
    Path((kind, txn)): Path<(String, String)>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    if kind.is_empty() || kind.len() > ID_MAX_BYTES {
        return Err(MatrixError::invalid_param("The type of a message has 1 to 255 bytes").into());
    }
    for content in body.messages.values().flat_map(BTreeMap::values) {
        if !content.get().starts_with('{') {
            return Err(MatrixError::bad_json("The content of a message to a device is an object").into());
        }
        if content.get().len() > TO_DEVICE_CONTENT_MAX_BYTES {
            let sentence = "The content of a message to a device is larger than 64 KiB";
            return Err(MatrixError::too_large(sentence).into());
        }
        if let Err(error) = serde_json::from_str::<Value>(content.get()) {
            let sentence = format!("The content of a message to a device cannot be read: {error}");
            return Err(MatrixError::bad_json(sentence).into());
        }
    }
    let device = OwnedDeviceId::from(txn_device(&auth));
    auth.handle
        .send_to_device(&device, &kind, &txn, body.messages)
        .await?;
    Ok(Json(json!({})))
}
