//! POST /_matrix/client/v3/rooms/{roomId}/invite — Client-Server API, "Room membership".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};
use crate::ratelimit::Class;

#[derive(Deserialize)]
pub struct Body {
    user_id: Option<OwnedUserId>,
    reason: Option<String>,
    medium: Option<String>,
}

/// Invites a user. Third-party invitations need an identity server, which this server has none of.
pub async fn post_invite(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.count(&app, Class::Invite)?;
    if body.user_id.is_none() && body.medium.is_some() {
        return Err(MatrixError::forbidden("This server invites by user id only").into());
    }
    let target = body
        .user_id
        .ok_or_else(|| MatrixError::missing_param("user_id is missing"))?;
    let room = super::joined_room(&app, &room_id, &auth.user)?;
    if app.rooms.is_local(&target) && !app.has_user(&target).await? {
        return Err(MatrixError::not_found("There is no such user").into());
    }
    super::links::check_invite(&app, &auth.user, &target)?;
    let profile = super::member_profile(&app, &target)?;
    room.invite(&auth.user, &target, profile, body.reason.as_deref())
        .await?;
    Ok(Json(json!({})))
}
