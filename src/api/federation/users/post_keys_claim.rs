//! POST /_matrix/federation/v1/user/keys/claim — Server-Server API, "End-to-End Encryption".

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::client::keys::post_claim::claim_local;
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
    let mut wanted = body.one_time_keys;
    wanted.retain(|user_id, _| app.users.is_local(user_id));
    let keys = claim_local(&app, wanted).await?;
    Ok(Json(json!({ "one_time_keys": keys })))
}
