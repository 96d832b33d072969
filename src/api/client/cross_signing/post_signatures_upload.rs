//! POST /_matrix/client/v3/keys/signatures/upload — Client-Server API, "Cross-signing".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use hearth_core::error::errcode;
use hearth_federation::edus::WantedDevices;
use hearth_users::Error;
use ruma::OwnedUserId;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json};

/// So long other servers are waited for, where the keys of their users are not kept here.
const REMOTE_TIMEOUT: Duration = Duration::from_secs(10);

/// Stores signatures on keys. Which of them were refused, and why, is in `failures`.
pub async fn post_signatures_upload(
    State(app): State<Arc<App>>,
    auth: Auth,
    Json(body): Json<BTreeMap<OwnedUserId, BTreeMap<String, Value>>>,
) -> Result<Json<Value>> {
    let mut uploaded = Vec::new();
    for (owner, keys) in &body {
        uploaded.extend(keys.iter().map(|(id, key)| (&**owner, id.as_str(), key)));
    }
    let mut failures: Map<String, Value> = Map::new();
    let remote = uploaded.iter().filter(|(owner, ..)| !app.users.is_local(owner));
    let remote: WantedDevices = remote
        .map(|(owner, ..)| ((*owner).to_owned(), Vec::new()))
        .collect();
    let masters = match remote.is_empty() {
        true => Default::default(),
        false => {
            app.federation
                .edus
                .query_keys(remote, REMOTE_TIMEOUT)
                .await?
                .master_keys
        }
    };
    for (owner, id, error) in auth.handle.upload_signatures(&uploaded, &masters).await? {
        failures.entry(owner.as_str()).or_insert_with(|| json!({}))[id] =
            json!({ "errcode": errcode_of(&error), "error": error.to_string() });
    }
    Ok(Json(json!({ "failures": failures })))
}

fn errcode_of(error: &Error) -> &'static str {
    match error {
        Error::InvalidSignature(_) => errcode::INVALID_SIGNATURE,
        Error::NotFound(_) => errcode::NOT_FOUND,
        Error::TooMany(_) => errcode::USER_LIMIT_EXCEEDED,
        _ => errcode::INVALID_PARAM,
    }
}
