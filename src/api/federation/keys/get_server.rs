//! GET /_matrix/key/v2/server — Server-Server API, "Publishing Keys".
//!
//! Also GET /_matrix/key/v2/server/{keyId}, which old servers call; the answer holds all keys either way.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value};

use crate::app::App;
use crate::extract::Json;

/// This server's own keys.
pub async fn get_server(State(app): State<Arc<App>>) -> Json<Map<String, Value>> {
    Json(app.federation.keys.own_document())
}
