//! GET /_matrix/federation/v1/state/{roomId} — Server-Server API, "Retrieving events".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Path, Query};
use crate::federation::large;
use crate::federation::origin::Origin;
use crate::federation::rooms::{shared_room, whole};
use crate::federation::wire::Object;

/// The query.
#[derive(Deserialize)]
pub struct Options {
    event_id: OwnedEventId,
}

/// The state before an event, with the auth chains of its events.
pub async fn get_state(
    State(app): State<Arc<App>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
    Origin(origin): Origin,
) -> Result<Response> {
    let room = shared_room(&app, &origin, &room_id)?;
    whole(&room).await?;
    let place = app.large_answers.place(origin.as_str()).await;
    let served = room
        .apart(move |room| room.serve_state(&options.event_id))
        .await?;
    let answer = Object::new()
        .events("auth_chain", &served.auth_chain)
        .events("pdus", &served.state);
    Ok(large::respond(answer.into_bytes(), place))
}
