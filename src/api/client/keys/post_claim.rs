//! POST /_matrix/client/v3/keys/claim — Client-Server API, "End-to-end encryption".

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json};

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    /// The algorithms wanted by user and device.
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
}

/// Takes a one-time key of each device, or its fallback key. Devices that have neither are left out.
pub async fn post_claim(
    State(app): State<Arc<App>>,
    _auth: Auth,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    let (mut keys, mut failures) = (Map::new(), Map::new());
    for (user_id, wanted) in &body.one_time_keys {
        if !app.users.is_local(user_id) {
            failures.insert(user_id.server_name().to_string(), super::unreachable());
            continue;
        }
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
