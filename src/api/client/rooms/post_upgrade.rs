//! POST /_matrix/client/v3/rooms/{roomId}/upgrade — Client-Server API, "Room upgrades".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_core::tasks;
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::extract::{Auth, Json, Path, or_default};
use crate::ratelimit::Class;

#[derive(Deserialize)]
pub struct Body {
    new_version: String,
    #[serde(default, deserialize_with = "or_default")]
    additional_creators: Vec<OwnedUserId>,
}

/// Replaces the room by one of another version.
pub async fn post_upgrade(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.must_be_among(&app, app.config.room.creation)?;
    auth.count(&app, Class::CreateRoom)?;
    let room = super::joined_room(&app, &room_id, &auth.user)?;
    let version = RoomVersionId::try_from(body.new_version.as_str())
        .map_err(|_| MatrixError::unsupported_room_version("This room version is not known"))?;
    let profile = super::member_profile(&app, &auth.user)?;
    // A client that hangs up leaves no room half replaced.
    let rooms = app.rooms.clone();
    let upgrade = async move {
        rooms
            .upgrade(&room, &auth.user, profile, version, body.additional_creators)
            .await
    };
    let new = tasks::to_its_end("upgrade of a room", upgrade).await;
    let new = new.ok_or_else(|| ApiError::internal(&"no room came of an upgrade"))??;
    Ok(Json(json!({ "replacement_room": new.id() })))
}
