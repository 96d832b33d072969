//! POST /_matrix/client/v3/keys/query — Client-Server API, "End-to-end encryption".

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
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
}

/// The keys of users' devices, and their cross-signing keys.
pub async fn post_query(
    State(app): State<Arc<App>>,
    auth: Auth,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    let mut answer = Answer::default();
    for (user_id, devices) in body.device_keys {
        if !app.users.is_local(&user_id) {
            answer.fail(user_id.server_name().as_str());
            continue;
        }
        let mut of_user = Map::new();
        if let Some(user) = app.users.get(&user_id)? {
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
    fn fail(&mut self, server: &str) {
        self.failures.insert(server.to_owned(), super::unreachable());
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
