//! POST /_matrix/client/v3/keys/upload — Client-Server API, "End-to-end encryption".

use std::collections::BTreeMap;

use hearth_users::KeyUpload;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::own_device;
use crate::error::Result;
use crate::extract::{Auth, Json};

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    device_keys: Option<Map<String, Value>>,
    #[serde(default)]
    one_time_keys: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    fallback_keys: Option<BTreeMap<String, Value>>,
}

/// Stores identity, one-time and fallback keys of the device; answers how many one-time keys it has now.
pub async fn post_upload(auth: Auth, Json(body): Json<Body>) -> Result<Json<Value>> {
    let device = own_device(&auth)?;
    let upload = KeyUpload {
        device_keys: body.device_keys,
        one_time_keys: body.one_time_keys.unwrap_or_default(),
        fallback_keys: body.fallback_keys.unwrap_or_default(),
    };
    let counts = auth.handle.upload_keys(device, upload).await?;
    Ok(Json(json!({ "one_time_key_counts": counts.one_time })))
}
