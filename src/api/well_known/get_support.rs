//! GET /.well-known/matrix/support — Client-Server API, "Well-known URIs: server contacts".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::Json;

/// Whom users can turn to, if the operator said so.
pub async fn get_support(State(app): State<Arc<App>>) -> Result<Json<Map<String, Value>>> {
    let settings = &app.config.well_known;
    let mut document = Map::new();
    if !settings.support_contacts.is_empty() {
        document.insert("contacts".into(), json!(settings.support_contacts));
    }
    if let Some(page) = &settings.support_page {
        document.insert("support_page".into(), page.as_str().into());
    }
    if document.is_empty() {
        return Err(MatrixError::not_found("No contacts are configured").into());
    }
    Ok(Json(document))
}
