//! PUT /_matrix/federation/v1/invite/{roomId}/{eventId} — Server-Server API, "Inviting to a room".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::extract::{Path, read_object};
use crate::federation::origin::SignedRaw;
use crate::federation::wire::json_response;

#[derive(Default, Deserialize)]
struct Event {
    #[serde(default)]
    unsigned: Unsigned,
}

#[derive(Default, Deserialize)]
struct Unsigned {
    #[serde(default)]
    invite_room_state: Vec<Box<RawValue>>,
}

/// As version 2, for rooms of versions 1 and 2, whose events look the same here.
pub async fn put_invite_v1(
    State(app): State<Arc<App>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    SignedRaw(origin, body): SignedRaw,
) -> Result<Response> {
    let event: &RawValue = serde_json::from_slice(&body).map_err(|error| ApiError::internal(&error))?;
    let unsigned = read_object::<Event>(&body)?.unsigned;
    let signed = super::take(
        &app,
        &origin,
        &RoomVersionId::V1,
        (&room_id, &event_id),
        event,
        unsigned.invite_room_state,
    );
    let signed = signed.await?;
    Ok(json_response([b"[200,{\"event\":", &*signed, b"}]"].concat()))
}
