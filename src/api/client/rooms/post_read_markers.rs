//! POST /_matrix/client/v3/rooms/{roomId}/read_markers — Client-Server API, "Read and unread markers".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::ReceiptKind;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

#[derive(Deserialize)]
pub struct Body {
    #[serde(rename = "m.fully_read")]
    fully_read: Option<OwnedEventId>,
    #[serde(rename = "m.read")]
    read: Option<OwnedEventId>,
    #[serde(rename = "m.read.private")]
    read_private: Option<OwnedEventId>,
}

/// Sets the fully-read marker and receipts in one call.
pub async fn post_read_markers(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    let room = super::joined_room(&app, &room_id, &auth.user)?;
    for (kind, event_id) in [
        (ReceiptKind::Public, body.read),
        (ReceiptKind::Private, body.read_private),
    ] {
        if let Some(event_id) = event_id {
            room.set_receipt(&auth.user, kind, None, &event_id).await?;
        }
    }
    if let Some(event_id) = body.fully_read {
        auth.handle.set_fully_read(&room_id, &event_id).await?;
    }
    auth.acts(&app);
    Ok(Json(json!({})))
}
