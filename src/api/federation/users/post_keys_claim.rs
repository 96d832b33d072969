//! POST /_matrix/federation/v1/user/keys/claim — Server-Server API, "End-to-End Encryption".

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::Json;
use crate::federation::origin::Signed;

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    /// The algorithms wanted by user and device.
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
}

/// Takes a one-time key of each device of this server's users, or its fallback key.
pub async fn post_keys_claim(
    State(app): State<Arc<App>>,
    Signed(_, body): Signed<Body>,
) -> Result<Json<Value>> {
    let mut keys = Map::new();
    for (user_id, wanted) in &body.one_time_keys {
        if !app.users.is_local(user_id) {
            continue;
        }
        let Some(user) = app.users.get(user_id)? else {
            continue;
        };
        let claimed = user.claim_keys(wanted).await?.into_iter();
        let of_user: Map<String, Value> = claimed
            .map(|(device, key)| (device, Value::Object(Map::from_iter([(key.id, key.key)]))))
            .collect();
        if !of_user.is_empty() {
            keys.insert(user_id.to_string(), Value::Object(of_user));
        }
    }
    Ok(Json(json!({ "one_time_keys": keys })))
}
