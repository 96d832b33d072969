//! GET /_matrix/client/v3/rooms/{roomId}/initialSync — Client-Server API, "Syncing" (deprecated).

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_core::{error::MatrixError, limits};
use hearth_rooms::Membership;
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::app::App;
use crate::client::large;
use crate::error::Result;
use crate::extract::{Auth, Path, Query};

/// What the query says.
#[derive(Deserialize)]
pub struct RoomInitialSyncQuery {
    limit: Option<usize>,
}

/// One room, whole.
pub async fn get_room_initial_sync(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room): Path<OwnedRoomId>,
    Query(query): Query<RoomInitialSyncQuery>,
) -> Result<Response> {
    let not_in = || MatrixError::forbidden("You are not in this room");
    let room = app.sync.rooms().get(&room)?.ok_or_else(not_in)?;
    let is_gone =
        room.membership(&auth.user)? != Membership::Join && app.is_forgotten(&auth.user, room.id())?;
    if is_gone {
        return Err(MatrixError::forbidden("You have left and forgotten this room").into());
    }
    let limit = query
        .limit
        .unwrap_or(limits::PAGE_DEFAULT_EVENTS)
        .min(limits::SYNC_TIMELINE_MAX_EVENTS);
    let place = large::place_for_rooms(&app, &auth, [&room].into_iter()).await;
    let answer = app
        .sync
        .room_snapshot(&auth.handle, auth.device.as_deref(), &room, limit)?;
    Ok(large::respond(answer.to_string().into_bytes(), place))
}
