//! POST /_matrix/federation/v1/user/keys/query — Server-Server API, "End-to-End Encryption".

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::Json;
use crate::federation::origin::Signed;

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    /// The devices asked for by user; an empty list is all of them.
    device_keys: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
}

/// The keys of devices of this server's users, and their cross-signing keys. Users who are not here are left out.
pub async fn post_keys_query(
    State(app): State<Arc<App>>,
    Signed(_, body): Signed<Body>,
) -> Result<Json<Value>> {
    let (mut devices, mut master, mut self_signing) = (Map::new(), Map::new(), Map::new());
    for (user_id, wanted) in body.device_keys {
        if !app.users.is_local(&user_id) {
            continue;
        }
        let Some(user) = app.users.get(&user_id)? else {
            continue;
        };
        let of_user = user.device_keys(&wanted)?.into_iter();
        let of_user: Map<String, Value> = of_user
            .map(|device| (device.device_id.to_string(), Value::Object(device.keys)))
            .collect();
        let keys = user.cross_signing_keys_for(None)?;
        for (section, key) in [(&mut master, keys.master), (&mut self_signing, keys.self_signing)] {
            if let Some(key) = key {
                section.insert(user_id.to_string(), Value::Object(key));
            }
        }
        devices.insert(user_id.to_string(), Value::Object(of_user));
    }
    Ok(Json(json!({
        "device_keys": devices,
        "master_keys": master,
        "self_signing_keys": self_signing,
    })))
}
