//! PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId} — Client-Server API, "Sending
//! events to a room".

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hearth_rooms::{NewEvent, Txn};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

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

#[derive(Serialize)]
struct Answer {
    event_id: OwnedEventId,
}

/// Sends a message event; the same transaction gives the same event.
pub async fn put_send(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, kind, txn)): Path<(OwnedRoomId, String, String)>,
    Query(options): Query<Options>,
    content: OptionalRawJson,
) -> Result<Response> {
    auth.must_not_be_suspended()?;
    auth.count(&app, Class::Send)?;
    let timestamp_ms = super::claimed_time(&auth, options.ts)?;
    let txn = Txn {
        device: super::txn_device(&auth),
        scope: format!("send/{kind}"),
        id: txn,
    };
    if let Some(delay_ms) = options.delay {
        let event = Delaying {
            room_id,
            kind,
            state_key: None,
            content: content.into_option(),
            delay_ms,
            timestamp_ms,
            txn: Some(txn),
        };
        // Apart, because hardly any send goes this way and all would carry what it needs.
        let delayed = Box::pin(schedule::delay(&app, &auth, event, schedule::Wording::Query));
        return Ok(delayed.await?.into_response());
    }
    let is_encrypted = kind == "m.room.encrypted";
    let event = NewEvent {
        sender: auth.user.clone(),
        content: content.required()?.to_vec(),
        state_key: None,
        redacts: None,
        timestamp_ms,
        kind,
    };
    let event_id = super::sending::send_message(&app, &room_id, event, txn).await?;
    auth.acts(&app);
    if let Some(device) = auth.device.as_ref().filter(|_| is_encrypted) {
        app.sync.has_encrypted(&auth.user, device);
    }
    Ok(Json(Answer { event_id }).into_response())
}
