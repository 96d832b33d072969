//! GET /.well-known/matrix/server — Server-Server API, "Server discovery".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::Json;

/// Where other servers find this one, if the operator said so.
pub async fn get_server(State(app): State<Arc<App>>) -> Result<Json<Value>> {
    let Some(server) = &app.config.well_known.server else {
        return Err(MatrixError::not_found("No delegation is configured").into());
    };
    Ok(Json(json!({ "m.server": server })))
}
