//! POST /_matrix/client/v3/rooms/{roomId}/kick — Client-Server API, "Room membership".

use std::sync::Arc;

use axum::extract::State;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

#[derive(Deserialize)]
pub struct Body {
    user_id: OwnedUserId,
    reason: Option<String>,
}

/// Removes a user from the room or takes an invitation back.
pub async fn post_kick(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    let room = super::joined_room(&app, &room_id, &auth.user)?;
    room.kick(&auth.user, &body.user_id, body.reason.as_deref())
        .await?;
    Ok(Json(json!({})))
}
