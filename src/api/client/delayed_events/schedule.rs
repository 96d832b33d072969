//! Scheduling an event, for all endpoints that do.

use bytes::Bytes;
use hearth_core::error::{MatrixError, errcode};
use hearth_core::limits::PDU_MAX_BYTES;
use hearth_rooms::Txn;
use hearth_users::{Delay, NewDelayedEvent};
use ruma::OwnedRoomId;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::app::App;
use crate::client::rooms;
use crate::error::Result;
use crate::extract::{Auth, Json};

/// An event to be delayed.
pub(crate) struct Delaying {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) kind: String,
    pub(crate) state_key: Option<String>,
    /// None where a client repeats a request without it.
    pub(crate) content: Option<Bytes>,
    pub(crate) delay_ms: u64,
    pub(crate) timestamp_ms: Option<u64>,
    pub(crate) txn: Option<Txn>,
}

/// How a delay that is too long is refused: the MSC has changed it with its endpoints.
#[derive(Clone, Copy)]
pub(crate) enum Wording {
    /// The delay came in the query of a request that sends an event.
    Query,
    /// The delay came in a body.
    Body,
}

/// Schedules an event. Power levels count when it is sent; who is not in the room may not even schedule.
pub(crate) async fn delay(app: &App, auth: &Auth, event: Delaying, wording: Wording) -> Result<Json<Value>> {
    let txn = event.txn.as_ref().map(|txn| {
        // Transactions belong to a device and the whole path.
        json!([txn.device, event.room_id, txn.scope, txn.id]).to_string()
    });
    if let Some(txn) = &txn
        && let Some(known) = auth.handle.delayed_of_txn(txn).await?
    {
        return Ok(Json(json!({ "delay_id": known })));
    }
    check(app, &event, wording)?;
    let room = rooms::joined_room(app, &event.room_id, &auth.user)?;
    let new = NewDelayedEvent {
        room_id: room.id().to_owned(),
        content: content(event.content)?,
        kind: event.kind,
        state_key: event.state_key,
        delay_ms: event.delay_ms,
        timestamp_ms: event.timestamp_ms,
        txn,
    };
    let most = app.config.experimental.delayed_events_per_user;
    match auth.handle.delay_event(new, most).await? {
        Delay::Scheduled(id) => Ok(Json(json!({ "delay_id": id }))),
        Delay::TooMany(wait_ms) => Err(MatrixError {
            message: "The maximum number of delayed events has been reached".to_owned(),
            ..MatrixError::limit_exceeded(wait_ms)
        }
        .into()),
    }
}

fn check(app: &App, event: &Delaying, wording: Wording) -> Result<(), MatrixError> {
    let limits = &app.config.experimental;
    if limits.delayed_events_per_user == 0 {
        return Err(MatrixError::forbidden("This server sends no delayed events"));
    }
    if event.delay_ms == 0 {
        return Err(MatrixError::invalid_param("The delay must be more than 0"));
    }
    let longest_ms = limits.delayed_events_max_seconds.saturating_mul(1000);
    if event.delay_ms <= longest_ms {
        return Ok(());
    }
    let sentence = "The requested delay exceeds the allowed maximum";
    let error = match wording {
        Wording::Query => MatrixError::new(400, errcode::UNKNOWN, sentence),
        Wording::Body => MatrixError::forbidden(sentence),
    };
    Err(error
        .with("org.matrix.msc4140.errcode", "M_MAX_DELAY_EXCEEDED")
        .with("org.matrix.msc4140.max_delay", longest_ms))
}

fn content(bytes: Option<Bytes>) -> Result<Box<RawValue>, MatrixError> {
    let bytes = bytes.ok_or_else(|| MatrixError::not_json("The body is empty, but must be a JSON object"))?;
    if bytes.len() > PDU_MAX_BYTES {
        return Err(MatrixError::too_large(
            "The content is larger than an event may be",
        ));
    }
    serde_json::from_slice(&bytes).map_err(|error| MatrixError::not_json(error.to_string()))
}
