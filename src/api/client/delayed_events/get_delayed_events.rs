//! GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events — MSC4140, "Getting a list of delayed events".

use serde_json::{Value, json};

use super::shown;
use crate::error::Result;
use crate::extract::{Auth, Json};

/// The user's events that wait, the next one first.
pub async fn get_delayed_events(auth: Auth) -> Result<Json<Value>> {
    let events = auth.handle.delayed_events()?;
    let shown: Vec<Value> = events.iter().map(shown::event).collect();
    // Clients know the list by either name.
    Ok(Json(json!({ "scheduled": shown, "delayed_events": shown })))
}
