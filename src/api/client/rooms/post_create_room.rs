//! POST /_matrix/client/v3/createRoom — Client-Server API, "Creation".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_core::tasks;
use hearth_rooms::{CreateRoom, Preset};
use ruma::{OwnedRoomAliasId, OwnedUserId, RoomVersionId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::extract::{Auth, Json, OptionalJson, or_default};
use crate::ratelimit::Class;

#[derive(Default, Deserialize)]
pub struct Body {
    visibility: Option<Listing>,
    room_alias_name: Option<String>,
    name: Option<String>,
    topic: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    invite: Vec<OwnedUserId>,
    #[serde(default, deserialize_with = "or_default")]
    invite_3pid: Vec<Value>,
    room_version: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    creation_content: Map<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    initial_state: Vec<StateEvent>,
    preset: Option<PresetName>,
    #[serde(default, deserialize_with = "or_default")]
    is_direct: bool,
    power_level_content_override: Option<Map<String, Value>>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Listing {
    Public,
    Private,
}

#[derive(Clone, Copy, Deserialize)]
enum PresetName {
    #[serde(rename = "private_chat")]
    Private,
    #[serde(rename = "trusted_private_chat")]
    TrustedPrivate,
    #[serde(rename = "public_chat")]
    Public,
}

#[derive(Deserialize)]
struct StateEvent {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    state_key: String,
    content: Map<String, Value>,
}

/// Creates a room.
pub async fn post_create_room(
    State(app): State<Arc<App>>,
    auth: Auth,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.must_be_among(&app, app.config.room.creation)?;
    auth.count(&app, Class::CreateRoom)?;
    if !body.invite_3pid.is_empty() {
        return Err(MatrixError::forbidden("This server invites by user id only").into());
    }
    let version = body
        .room_version
        .as_deref()
        .map(RoomVersionId::try_from)
        .transpose();
    let version =
        version.map_err(|_| MatrixError::unsupported_room_version("This room version is not known"))?;
    let listed = body.visibility == Some(Listing::Public);
    if listed {
        auth.must_be_among(&app, app.config.room.publication)?;
    }
    if body.room_alias_name.is_some() {
        auth.must_be_among(&app, app.config.room.aliases)?;
    }
    let preset = match body.preset {
        Some(PresetName::Private) => Preset::PrivateChat,
        Some(PresetName::TrustedPrivate) => Preset::TrustedPrivateChat,
        Some(PresetName::Public) => Preset::PublicChat,
        None if listed => Preset::PublicChat,
        None => Preset::PrivateChat,
    };
    let alias = body
        .room_alias_name
        .as_deref()
        .map(|name| alias(&app, &auth, name))
        .transpose()?;
    let mut invite = Vec::with_capacity(body.invite.len());
    for user in body.invite {
        check_invited(&app, &auth, &user).await?;
        let profile = super::member_profile(&app, &user)?;
        if user != auth.user && !invite.iter().any(|(known, _)| *known == user) {
            invite.push((user, profile));
        }
    }
    for event in &body.initial_state {
        check_first_invite(&app, &auth, event).await?;
    }
    let mut creation_content = body.creation_content;
    if !app.config.room.federate {
        creation_content.entry("m.federate").or_insert(Value::Bool(false));
    }
    let spec = CreateRoom {
        creator_profile: super::member_profile(&app, &auth.user)?,
        version,
        listed,
        alias,
        name: body.name.filter(|name| !name.is_empty()),
        topic: body.topic,
        invite,
        creation_content,
        initial_state: body
            .initial_state
            .into_iter()
            .map(|event| (event.kind, event.state_key, Value::Object(event.content)))
            .collect(),
        power_levels: body.power_level_content_override,
        is_direct: body.is_direct,
        ..CreateRoom::new(auth.user.clone(), preset)
    };
    // A client that hangs up leaves no room behind to which nobody is invited.
    let rooms = app.rooms.clone();
    let room = tasks::to_its_end("creation of a room", async move { rooms.create(spec).await }).await;
    let room = room.ok_or_else(|| ApiError::internal(&"no room came of its creation"))??;
    Ok(Json(json!({ "room_id": room.id() })))
}

/// Refuses whom this server knows that he is not there, or does not want to be invited.
async fn check_invited(app: &App, auth: &Auth, user: &UserId) -> Result<()> {
    if app.rooms.is_local(user) && !app.has_user(user).await? {
        return Err(MatrixError::not_found(format!("There is no user {user}")).into());
    }
    super::links::check_invite(app, &auth.user, user)
}

/// Checks an event of the first state as the invitation that it may be.
async fn check_first_invite(app: &App, auth: &Auth, event: &StateEvent) -> Result<()> {
    let invites = event.content.get("membership").and_then(Value::as_str) == Some("invite");
    let user = <&UserId>::try_from(event.state_key.as_str()).ok();
    let Some(user) = user.filter(|_| invites && event.kind == "m.room.member") else {
        return Ok(());
    };
    if !app.rooms.is_local(user) {
        let sentence = "Users of other servers have to be asked: name them in `invite`";
        return Err(MatrixError::invalid_param(sentence).into());
    }
    check_invited(app, auth, user).await
}

fn alias(app: &App, auth: &Auth, name: &str) -> Result<OwnedRoomAliasId> {
    let invalid = || MatrixError::invalid_param("room_alias_name cannot be the local part of an alias");
    if name.is_empty() || name.contains([':', ' ', '\0']) {
        return Err(invalid().into());
    }
    let alias = OwnedRoomAliasId::try_from(format!("#{name}:{}", app.server_name)).map_err(|_| invalid())?;
    app.check_alias_owner(auth, &alias)?;
    Ok(alias)
}
