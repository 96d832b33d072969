//! POST /_matrix/client/v3/keys/claim — Client-Server API, "End-to-end encryption".

use std::sync::Arc;

use axum::extract::State;
use hearth_federation::edus::WantedKeys;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json};

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    /// The algorithms wanted by user and device.
    one_time_keys: WantedKeys,
    /// How long to wait for other servers, in milliseconds.
    timeout: Option<u64>,
}

/// Takes a one-time key of each device, or its fallback key. Devices that have neither are left out.
pub async fn post_claim(
    State(app): State<Arc<App>>,
    _auth: Auth,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    let (mut keys, mut failures) = (Map::new(), Map::new());
    let (local, remote): (WantedKeys, WantedKeys) = body
        .one_time_keys
        .into_iter()
        .partition(|(user_id, _)| app.users.is_local(user_id));
    if !remote.is_empty() {
        let timeout = super::timeout(body.timeout);
        let claimed = app.federation.edus.claim_keys(remote, timeout).await;
        let of_users = claimed.one_time_keys.into_iter();
        keys.extend(of_users.map(|(user, devices)| (user.to_string(), Value::Object(devices))));
        failures.extend(claimed.failures);
    }
    for (user_id, wanted) in &local {
        let Some(user) = app.users.get(user_id)? else {
            continue;
        };
        let mut of_user = Map::new();
        for (device, key) in user.claim_keys(wanted).await? {
            let mut one = Map::new();
            one.insert(key.id, key.key);
            of_user.insert(device, Value::Object(one));
        }
        if !of_user.is_empty() {
            keys.insert(user_id.to_string(), Value::Object(of_user));
        }
    }
    Ok(Json(json!({ "one_time_keys": keys, "failures": failures })))
}
