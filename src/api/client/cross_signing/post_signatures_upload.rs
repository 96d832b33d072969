//! POST /_matrix/client/v3/keys/signatures/upload — Client-Server API, "Cross-signing".

use std::collections::BTreeMap;

use hearth_core::error::errcode;
use hearth_users::Error;
use ruma::OwnedUserId;
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// Stores signatures on keys. Which of them were refused, and why, is in `failures`.
pub async fn post_signatures_upload(
    auth: Auth,
    Json(body): Json<BTreeMap<OwnedUserId, BTreeMap<String, Value>>>,
) -> Result<Json<Value>> {
    let mut uploaded = Vec::new();
    for (owner, keys) in &body {
        uploaded.extend(keys.iter().map(|(id, key)| (&**owner, id.as_str(), key)));
    }
    let mut failures: Map<String, Value> = Map::new();
    for (owner, id, error) in auth.handle.upload_signatures(&uploaded).await? {
        failures.entry(owner.as_str()).or_insert_with(|| json!({}))[id] =
            json!({ "errcode": errcode_of(&error), "error": error.to_string() });
    }
    Ok(Json(json!({ "failures": failures })))
}

fn errcode_of(error: &Error) -> &'static str {
    match error {
        Error::InvalidSignature(_) => errcode::INVALID_SIGNATURE,
        Error::NotFound(_) => errcode::NOT_FOUND,
        Error::TooMany(_) => errcode::RESOURCE_LIMIT_EXCEEDED,
        _ => errcode::INVALID_PARAM,
    }
}
