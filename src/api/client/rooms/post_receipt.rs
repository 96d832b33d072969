//! POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId} — Client-Server API,
//! "Receipts".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::ReceiptKind;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

#[derive(Default, Deserialize)]
pub struct Body {
    #[serde(default, deserialize_with = "present")]
    thread_id: Option<Value>,
}

/// A field that is there, also where it is null.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// Says how far the user has read.
pub async fn post_receipt(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, kind, event_id)): Path<(OwnedRoomId, String, OwnedEventId)>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    let room = super::joined_room(&app, &room_id, &auth.user)?;
    let thread = match body.thread_id {
        None => None,
        Some(Value::String(thread)) if !thread.is_empty() => Some(thread),
        Some(_) => {
            return Err(MatrixError::invalid_param("thread_id must be a string that is not empty").into());
        }
    };
    if kind == "m.fully_read" {
        if thread.is_some() {
            return Err(MatrixError::invalid_param("m.fully_read has no thread_id").into());
        }
        auth.handle.set_fully_read(&room_id, &event_id).await?;
        auth.acts(&app);
        return Ok(Json(json!({})));
    }
    let kind = ReceiptKind::from_word(&kind)
        .ok_or_else(|| MatrixError::invalid_param(format!("There are no receipts of type {kind:?}")))?;
    room.set_receipt(&auth.user, kind, thread.as_deref(), &event_id)
        .await?;
    auth.acts(&app);
    Ok(Json(json!({})))
}
