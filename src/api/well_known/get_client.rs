//! GET /.well-known/matrix/client — Client-Server API, "Well-known URIs".

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::extract::Json;

/// Where clients find this server, with the keys that the operator configured.
pub async fn get_client(State(app): State<Arc<App>>) -> Json<Map<String, Value>> {
    Json(document(&app))
}

/// The document; a login answer carries it too.
pub fn document(app: &App) -> Map<String, Value> {
    let mut document = app.config.well_known.client.clone();
    // A configured key wins, so that an operator can name what the server cannot know.
    document
        .entry("m.homeserver")
        .or_insert_with(|| json!({ "base_url": app.config.client_base_url() }));
    document
}
