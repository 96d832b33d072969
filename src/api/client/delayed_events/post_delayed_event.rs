//! POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId} — MSC4140, "Management endpoint action in
//! request body": an earlier form that clients still use.

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use serde::Deserialize;
use serde_json::Value;

use super::post_delayed_event_action::manage;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Anybody, Json, Path};

/// The body.
#[derive(Deserialize)]
pub struct Body {
    action: Option<String>,
}

/// Does what the body says with a delayed event.
pub async fn post_delayed_event(
    State(app): State<Arc<App>>,
    _: Anybody,
    Path(id): Path<String>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    let action = body
        .action
        .ok_or_else(|| MatrixError::missing_param("action is missing"))?;
    if !["send", "cancel", "restart"].contains(&action.as_str()) {
        return Err(MatrixError::invalid_param("action must be send, cancel or restart").into());
    }
    manage(&app, &id, &action).await
}
