//! POST /_matrix/client/v3/keys/query — Client-Server API, "End-to-end encryption".

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use hearth_federation::edus::{RemoteKeys, WantedDevices};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json};

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    /// The devices asked for by user; an empty list is all of them.
    device_keys: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    /// How long to wait for other servers, in milliseconds.
    timeout: Option<u64>,
}

/// The keys of users' devices, and their cross-signing keys.
pub async fn post_query(
    State(app): State<Arc<App>>,
    auth: Auth,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    let mut answer = Answer::default();
    let (local, remote): (WantedDevices, WantedDevices) = body
        .device_keys
        .into_iter()
        .partition(|(user_id, _)| app.users.is_local(user_id));
    if !remote.is_empty() {
        let timeout = super::timeout(body.timeout);
        let found = app.federation.edus.query_keys(remote, timeout).await?;
        answer.add_remote(&auth, found)?;
    }
    for (user_id, devices) in local {
        // Who is not known is missing from the answer.
        let Some(user) = app.users.get(&user_id)? else {
            continue;
        };
        let mut of_user = Map::new();
        for device in user.device_keys(&devices)? {
            of_user.insert(device.device_id.to_string(), Value::Object(device.keys));
        }
        let keys = user.cross_signing_keys_for(Some(&auth.handle))?;
        let sections = [
            (&mut answer.master_keys, keys.master),
            (&mut answer.self_signing_keys, keys.self_signing),
            (&mut answer.user_signing_keys, keys.user_signing),
        ];
        for (section, key) in sections {
            if let Some(key) = key {
                section.insert(user_id.to_string(), Value::Object(key));
            }
        }
        answer
            .device_keys
            .insert(user_id.to_string(), Value::Object(of_user));
    }
    Ok(Json(answer.into_json()))
}

#[derive(Default)]
struct Answer {
    device_keys: Map<String, Value>,
    master_keys: Map<String, Value>,
    self_signing_keys: Map<String, Value>,
    user_signing_keys: Map<String, Value>,
    failures: Map<String, Value>,
}

impl Answer {
    /// Adds keys of remote users, with the asking user's own signatures on their master keys.
    fn add_remote(&mut self, auth: &Auth, found: RemoteKeys) -> Result<()> {
        for (user, devices) in found.device_keys {
            self.device_keys.insert(user.to_string(), Value::Object(devices));
        }
        for (user, mut key) in found.master_keys {
            let ids = key.get("keys").and_then(Value::as_object);
            let id = ids.and_then(|ids| ids.keys().next()).cloned().unwrap_or_default();
            let name = id.strip_prefix("ed25519:").unwrap_or(&id);
            auth.handle.add_signatures_on(&user, name, &mut key)?;
            self.master_keys.insert(user.to_string(), Value::Object(key));
        }
        for (user, key) in found.self_signing_keys {
            self.self_signing_keys
                .insert(user.to_string(), Value::Object(key));
        }
        self.failures.extend(found.failures);
        Ok(())
    }

    fn into_json(self) -> Value {
        json!({
            "device_keys": self.device_keys,
            "failures": self.failures,
            "master_keys": self.master_keys,
            "self_signing_keys": self.self_signing_keys,
            "user_signing_keys": self.user_signing_keys,
        })
    }
}
