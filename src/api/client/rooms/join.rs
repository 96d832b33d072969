//! POST /_matrix/client/v3/rooms/{roomId}/join and POST /_matrix/client/v3/join/{roomIdOrAlias} —
//! Client-Server API, "Joining rooms".

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use hearth_rooms::{Error as RoomError, Membership as RoomMembership, RemoteFailure, Room};
use hearth_users::Membership;
use ruma::{OwnedRoomId, OwnedRoomOrAliasId, RoomId, RoomOrAliasId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path, Query};
use crate::ratelimit::Class;

use super::elsewhere::{Via, reach};
use super::sending;

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

/// So long an event may be on its way between two servers that are both well.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

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
    Query(via): Query<Via>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    join(&app, &auth, (&*room_id).into(), via, body).await
}

/// Joins a room by its id or an alias.
pub async fn post_join_alias(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(target): Path<OwnedRoomOrAliasId>,
    Query(via): Query<Via>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    join(&app, &auth, &target, via, body).await
}

async fn join(app: &App, auth: &Auth, target: &RoomOrAliasId, via: Via, body: Body) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.count(app, Class::Join)?;
    let reach = reach(app, auth, target, via).await?;
    let room_id = &reach.room_id;
    if auth.account.guest && !is_invited_from_elsewhere(app, auth, room_id)? {
        sending::guest_may_join(app, room_id)?;
    }
    let mut content = body.custom;
    content.retain(|name, _| !RESERVED.contains(&name.as_str()));
    content.extend(super::member_profile(app, &auth.user)?);
    if let Some(reason) = body.reason {
        content.insert("reason".to_owned(), json!(reason));
    }
    if let Some(signed) = body.third_party_signed {
        content.insert("third_party_signed".to_owned(), signed);
    }
    if let Some(room) = app.rooms.get(room_id)?.filter(|room| room.is_decided_here()) {
        join_here(app, auth, &room, content).await?;
    } else {
        app.rooms
            .join_remote(&auth.user, room_id, &reach.via, content)
            .await?;
        if auth.account.guest {
            stay_if_guests_may(app, auth, room_id).await?;
        }
    }
    Ok(Json(json!({ "room_id": room_id })))
}

/// Joins a user to a room that this server is in. Another server that is asked refuses who has come a moment ago into the room
/// that lets him in, while it is still being told; and somebody here may be getting the power to let him in. So who is
/// refused elsewhere is tried once more.
async fn join_here(app: &App, auth: &Auth, room: &Room, content: Map<String, Value>) -> Result<()> {
    match try_join(app, auth, room, content.clone()).await {
        Err(RoomError::Remote(RemoteFailure::Refused { .. })) => {}
        joined => return Ok(joined?),
    }
    tokio::time::sleep(ON_ITS_WAY).await;
    Ok(try_join(app, auth, room, content).await?)
}

/// Joins a user by what is known here, or else through another server: where nobody here may let the user in, and where the
/// rest of the state is still to come, so that it is not known who is banned.
async fn try_join(app: &App, auth: &Auth, room: &Room, content: Map<String, Value>) -> Result<(), RoomError> {
    let has_others = !room.other_servers().is_empty();
    let is_unknown = room.is_partial() && room.membership(&auth.user)? == RoomMembership::None;
    if !(is_unknown && has_others) {
        match room.join(&auth.user, content.clone()).await {
            Err(RoomError::UnableToAuthorizeJoin(_)) if has_others => {}
            joined => return joined.map(drop),
        }
    }
    let via = room.servers_to_ask(5);
    app.rooms.join_remote(&auth.user, room.id(), &via, content).await
}

/// Whether a user is invited to a room that this server is not in, so that it is not known who may join there.
fn is_invited_from_elsewhere(app: &App, auth: &Auth, room_id: &RoomId) -> Result<bool> {
    let is_here = app.rooms.get(room_id)?.is_some_and(|room| room.is_decided_here());
    let entry = auth.handle.room(room_id)?;
    Ok(!is_here && entry.is_some_and(|entry| entry.membership == Membership::Invite))
}

/// Takes a guest out again who has come into a room that turns out to be closed to guests: other servers do not know who is
/// a guest, so they let everybody in who is invited.
async fn stay_if_guests_may(app: &App, auth: &Auth, room_id: &RoomId) -> Result<()> {
    let Err(refusal) = sending::guest_may_join(app, room_id) else {
        return Ok(());
    };
    let room = app.rooms.require(room_id)?;
    room.leave(&auth.user, Some("This room is closed to guests"))
        .await?;
    Err(refusal)
}
