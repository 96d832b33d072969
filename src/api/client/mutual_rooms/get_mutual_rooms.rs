//! GET /_matrix/client/v1/mutual_rooms — Client-Server API, "Mutual rooms".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Query};

/// Rooms in one answer: as many as a client shows at once.
const PAGE_ROOMS: usize = 100;

/// The query. A page begins after the room that the token is.
#[derive(Deserialize)]
pub struct Asked {
    user_id: OwnedUserId,
    from: Option<OwnedRoomId>,
}

/// The rooms that both users are joined to, in the order of their ids.
pub async fn get_mutual_rooms(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>> {
    if asked.user_id == auth.user {
        return Err(MatrixError::invalid_param("You share all of your rooms with yourself").into());
    }
    let own = app.room_links.joined_rooms(&auth.user)?;
    let others = app.room_links.joined_rooms(&asked.user_id)?;
    let rooms: Vec<OwnedRoomId> = own.intersection(&others).cloned().collect();
    let count = rooms.len();
    let mut page = rooms
        .into_iter()
        .filter(|room| asked.from.as_ref().is_none_or(|from| room > from));
    let joined: Vec<OwnedRoomId> = page.by_ref().take(PAGE_ROOMS).collect();
    let mut answer = json!({ "joined": joined, "count": count });
    if page.next().is_some() {
        answer["next_batch"] = json!(joined.last());
    }
    Ok(Json(answer))
}
