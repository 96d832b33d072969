//! PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId} — Client-Server API, "Sending
//! events to a room".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::{NewEvent, Txn};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query, RawJson};
use crate::ratelimit::Class;

#[derive(Deserialize)]
pub struct Options {
    ts: Option<u64>,
}

/// Sends a message event; the same transaction gives the same event.
pub async fn put_send(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, kind, txn)): Path<(OwnedRoomId, String, String)>,
    Query(options): Query<Options>,
    RawJson(content): RawJson,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.count(&app, Class::Send)?;
    let room = super::joined_room(&app, &room_id, &auth.user)?;
    super::events::check_content(&room, &kind, &content)?;
    let redacts = super::events::redacts(&kind, &content);
    let event = NewEvent {
        sender: auth.user.clone(),
        content: content.to_vec(),
        state_key: None,
        redacts,
        timestamp_ms: super::claimed_time(&auth, options.ts),
        kind: kind.clone(),
    };
    let txn = Txn {
        device: super::txn_device(&auth),
        scope: format!("send/{kind}"),
        id: txn,
    };
    let sent = room.send(event, Some(txn)).await?;
    Ok(Json(json!({ "event_id": sent.event_id })))
}
