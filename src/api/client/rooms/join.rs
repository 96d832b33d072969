//! POST /_matrix/client/v3/rooms/{roomId}/join and POST /_matrix/client/v3/join/{roomIdOrAlias} —
//! Client-Server API, "Joining rooms".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::{OwnedRoomId, OwnedRoomOrAliasId, RoomId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};
use crate::ratelimit::Class;

/// Members of a member event's content that the server alone sets.
const RESERVED: [&str; 7] = [
    "membership",
    "displayname",
    "avatar_url",
    "join_authorised_via_users_server",
    "third_party_invite",
    "is_direct",
    "via",
];

#[derive(Default, Deserialize)]
pub struct Body {
    reason: Option<String>,
    third_party_signed: Option<Value>,
    /// What else the member event shall say: clients put keys of their own here.
    #[serde(flatten)]
    custom: Map<String, Value>,
}

/// Joins a room by its id.
pub async fn post_join(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    join(&app, &auth, &room_id, body).await
}

/// Joins a room by its id or an alias.
pub async fn post_join_alias(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(target): Path<OwnedRoomOrAliasId>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    let room_id = app.room_id_of(&target)?;
    join(&app, &auth, &room_id, body).await
}

async fn join(app: &App, auth: &Auth, room_id: &RoomId, body: Body) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.count(app, Class::Join)?;
    let room = app.rooms.get(room_id)?;
    let room = room.ok_or_else(|| MatrixError::not_found("This room is not known here"))?;
    let mut content = body.custom;
    content.retain(|name, _| !RESERVED.contains(&name.as_str()));
    content.extend(super::member_profile(app, &auth.user)?);
    if let Some(reason) = body.reason {
        content.insert("reason".to_owned(), json!(reason));
    }
    if let Some(signed) = body.third_party_signed {
        content.insert("third_party_signed".to_owned(), signed);
    }
    room.join(&auth.user, content).await?;
    Ok(Json(json!({ "room_id": room_id })))
}
