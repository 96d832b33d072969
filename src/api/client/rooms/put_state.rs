//! PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey} — Client-Server API, "Sending
//! events to a room".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::NewEvent;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::client::delayed_events::schedule::{self, Delaying};
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalRawJson, Path, Query};
use crate::ratelimit::Class;

#[derive(Deserialize)]
pub struct Options {
    ts: Option<u64>,
    /// MSC4140: how many milliseconds the event waits.
    #[serde(rename = "org.matrix.msc4140.delay")]
    delay: Option<u64>,
}

/// Sends a state event with an empty state key.
pub async fn put_state_empty(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, kind)): Path<(OwnedRoomId, String)>,
    Query(options): Query<Options>,
    content: OptionalRawJson,
) -> Result<Json<Value>> {
    put(&app, &auth, &room_id, kind, String::new(), options, content).await
}

/// Sends a state event.
pub async fn put_state(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, kind, state_key)): Path<(OwnedRoomId, String, String)>,
    Query(options): Query<Options>,
    content: OptionalRawJson,
) -> Result<Json<Value>> {
    put(&app, &auth, &room_id, kind, state_key, options, content).await
}

async fn put(
    app: &App,
    auth: &Auth,
    room_id: &OwnedRoomId,
    kind: String,
    state_key: String,
    options: Options,
    content: OptionalRawJson,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.count(app, Class::Send)?;
    let timestamp_ms = super::claimed_time(auth, options.ts)?;
    if let Some(delay_ms) = options.delay {
        let event = Delaying {
            room_id: room_id.clone(),
            kind,
            state_key: Some(state_key),
            content: content.into_option(),
            delay_ms,
            timestamp_ms,
            txn: None,
        };
        return schedule::delay(app, auth, event, schedule::Wording::Query).await;
    }
    let event = NewEvent {
        sender: auth.user.clone(),
        kind,
        state_key: Some(state_key),
        content: content.required()?.to_vec(),
        redacts: None,
        timestamp_ms,
    };
    let event_id = super::sending::send_state(app, room_id, event, None).await?;
    auth.acts(app);
    Ok(Json(json!({ "event_id": event_id })))
}
