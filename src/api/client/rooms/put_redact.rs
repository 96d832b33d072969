//! PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId} — Client-Server API, "Redactions".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::{NewEvent, Txn};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path, Query};
use crate::ratelimit::Class;

#[derive(Deserialize)]
pub struct Options {
    ts: Option<u64>,
}

#[derive(Default, Deserialize)]
pub struct Body {
    reason: Option<String>,
}

/// Redacts an event.
pub async fn put_redact(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, event_id, txn)): Path<(OwnedRoomId, OwnedEventId, String)>,
    Query(options): Query<Options>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    auth.count(&app, Class::Send)?;
    let timestamp_ms = super::claimed_time(&auth, options.ts)?;
    let txn = Txn {
        device: super::txn_device(&auth),
        scope: format!("redact/{event_id}"),
        id: txn,
    };
    let room = match super::joined_room(&app, &room_id, &auth.user) {
        Ok(room) => room,
        Err(refusal) => {
            let event_id = super::sending::sent_before(&app, &room_id, &auth.user, &txn, refusal).await?;
            return Ok(Json(json!({ "event_id": event_id })));
        }
    };
    if auth.account.suspended
        && room
            .shown_event(&event_id)?
            .is_none_or(|event| event.pdu.sender() != auth.user)
    {
        auth.must_not_be_suspended()?;
    }
    let mut content = Map::new();
    if let Some(reason) = body.reason {
        content.insert("reason".to_owned(), json!(reason));
    }
    let event = NewEvent {
        sender: auth.user.clone(),
        kind: "m.room.redaction".to_owned(),
        state_key: None,
        content: Value::Object(content).to_string().into_bytes(),
        timestamp_ms,
        redacts: Some(event_id.clone()),
    };
    let sent = room.send(event, Some(txn)).await?;
    auth.acts(&app);
    Ok(Json(json!({ "event_id": sent.event_id })))
}
