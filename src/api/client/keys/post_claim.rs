//! POST /_matrix/client/v3/keys/claim — Client-Server API, "End-to-end encryption".

use std::sync::Arc;

use axum::extract::State;
use hearth_federation::edus::WantedKeys;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::{ApiError, Result};
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
    keys.extend(claim_local(&app, local).await?);
    Ok(Json(json!({ "one_time_keys": keys, "failures": failures })))
}

/// How many users' keys are taken at once: each user's are a commit, and the log writes those together that wait together.
const USERS_AT_ONCE: usize = 64;

/// Takes keys of this server's users.
pub(crate) async fn claim_local(app: &App, wanted: WantedKeys) -> Result<Map<String, Value>> {
    let mut keys = Map::new();
    let wanted: Vec<_> = wanted.into_iter().collect();
    for users in wanted.chunks(USERS_AT_ONCE) {
        let claims = users.iter().map(async |(user_id, wanted)| {
            let claimed = match app.users.get(user_id)? {
                Some(user) => user.claim_keys(wanted).await?,
                None => return Ok(None),
            };
            let of_user: Map<String, Value> = claimed
                .into_iter()
                .map(|(device, key)| (device, Value::Object(Map::from_iter([(key.id, key.key)]))))
                .collect();
            Ok::<_, ApiError>(Some((user_id.to_string(), Value::Object(of_user))))
        });
        let claimed = futures::future::try_join_all(claims).await?;
        let some = |(_, keys): &(String, Value)| keys.as_object().is_some_and(|keys| !keys.is_empty());
        keys.extend(claimed.into_iter().flatten().filter(some));
    }
    Ok(keys)
}
