//! PUT /_matrix/federation/v2/invite/{roomId}/{eventId} — Server-Server API, "Inviting to a room".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::app::App;
use crate::error::Result;
use crate::extract::Path;
use crate::federation::origin::Signed;
use crate::federation::wire::json_response;

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    room_version: RoomVersionId,
    event: Box<RawValue>,
    #[serde(default)]
    invite_room_state: Vec<Box<RawValue>>,
}

/// A user of this server is invited; the event comes back signed.
pub async fn put_invite(
    State(app): State<Arc<App>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Signed(origin, body): Signed<Body>,
) -> Result<Response> {
    let signed = super::take(
        &app,
        &origin,
        &body.room_version,
        (&room_id, &event_id),
        &body.event,
        body.invite_room_state,
    );
    let signed = signed.await?;
    Ok(json_response([b"{\"event\":", &*signed, b"}"].concat()))
}
