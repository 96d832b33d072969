//! GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId} — MSC4140, "Getting a single delayed event".

use hearth_core::error::MatrixError;
use serde_json::Value;

use super::shown;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// One of the user's delayed events, also one that was sent or cancelled.
pub async fn get_delayed_event(auth: Auth, Path(id): Path<String>) -> Result<Json<Value>> {
    let event = auth.handle.delayed_event(&id)?;
    let event = event.ok_or_else(|| MatrixError::not_found("There is no such delayed event"))?;
    Ok(Json(shown::event(&event)))
}
