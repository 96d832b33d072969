//! POST /_matrix/client/v3/knock/{roomIdOrAlias} — Client-Server API, "Knocking on rooms".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedRoomOrAliasId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};
use crate::ratelimit::Class;

#[derive(Default, Deserialize)]
pub struct Body {
    reason: Option<String>,
}

/// Asks to be let into a room.
pub async fn post_knock(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(target): Path<OwnedRoomOrAliasId>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.count(&app, Class::Join)?;
    let room_id = app.room_id_of(&target)?;
    let room = app.rooms.get(&room_id)?;
    let room = room.ok_or_else(|| MatrixError::not_found("This room is not known here"))?;
    let profile = super::member_profile(&app, &auth.user)?;
    room.knock(&auth.user, profile, body.reason.as_deref()).await?;
    Ok(Json(json!({ "room_id": room_id })))
}
