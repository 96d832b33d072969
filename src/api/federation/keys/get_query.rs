//! GET /_matrix/key/v2/query/{serverName} — Server-Server API, "Querying Keys Through Another Server".

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedServerName;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::extract::{Json, Path, Query};

/// The query.
#[derive(Debug, Deserialize)]
pub struct Parameters {
    minimum_valid_until_ts: Option<u64>,
}

/// The keys of another server, with our signature.
pub async fn get_query(
    State(app): State<Arc<App>>,
    Path(server): Path<OwnedServerName>,
    Query(parameters): Query<Parameters>,
) -> Json<Value> {
    let keys = &app.federation.keys;
    let documents = keys
        .notarize(&server, &BTreeMap::new(), parameters.minimum_valid_until_ts)
        .await;
    Json(json!({ "server_keys": documents }))
}
