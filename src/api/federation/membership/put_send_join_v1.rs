//! PUT /_matrix/federation/v1/send_join/{roomId}/{eventId} — Server-Server API, "Joining Rooms".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::Dance;
use ruma::{OwnedEventId, OwnedRoomId};

use crate::app::App;
use crate::error::Result;
use crate::extract::Path;
use crate::federation::large;
use crate::federation::origin::SignedRaw;
use crate::federation::wire::Object;

/// As version 2, in the list of a status and an object that old servers expect.
pub async fn put_send_join_v1(
    State(app): State<Arc<App>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    SignedRaw(origin, body): SignedRaw,
) -> Result<Response> {
    let (room, join) = super::accept(&app, &origin, Dance::Join, (&room_id, &event_id), &body).await?;
    let place = app.large_answers.place(origin.as_str()).await;
    let answer = room.apart(move |room| room.join_answer(&join, None)).await?;
    let answer = Object::new()
        .events("auth_chain", &answer.auth_chain)
        .events("state", &answer.state);
    Ok(large::respond(answer.into_old_bytes(), place))
}
