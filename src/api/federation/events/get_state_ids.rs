//! GET /_matrix/federation/v1/state_ids/{roomId} — Server-Server API, "Retrieving events".

use std::sync::Arc;

use axum::extract::State;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Path, Query};
use crate::federation::origin::Origin;
use crate::federation::rooms::{shared_room, whole};

/// The query.
#[derive(Deserialize)]
pub struct Options {
    event_id: OwnedEventId,
}

/// The ids of the state before an event, and of the auth chains.
pub async fn get_state_ids(
    State(app): State<Arc<App>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
    Origin(origin): Origin,
) -> Result<Json<Value>> {
    let room = shared_room(&app, &origin, &room_id)?;
    whole(&room).await?;
    let served = room
        .apart(move |room| room.serve_state_ids(&options.event_id))
        .await?;
    Ok(Json(
        json!({ "auth_chain_ids": served.auth_chain, "pdu_ids": served.state }),
    ))
}
