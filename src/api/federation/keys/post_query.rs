//! POST /_matrix/key/v2/query — Server-Server API, "Querying Keys Through Another Server".

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedServerName;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::extract::Json;

/// The body.
#[derive(Debug, Deserialize)]
pub struct Body {
    server_keys: BTreeMap<OwnedServerName, BTreeMap<String, Criteria>>,
}

#[derive(Debug, Deserialize)]
struct Criteria {
    minimum_valid_until_ts: Option<u64>,
}

/// The keys of other servers, with our signature.
pub async fn post_query(State(app): State<Arc<App>>, Json(body): Json<Body>) -> Json<Value> {
    let wanted = body.server_keys.into_iter().map(|(server, ids)| {
        let ids = ids
            .into_iter()
            .map(|(id, criteria)| (id, criteria.minimum_valid_until_ts));
        (server, ids.collect())
    });
    let documents = app.federation.keys.notarize_many(wanted.collect()).await;
    Json(json!({ "server_keys": documents }))
}
