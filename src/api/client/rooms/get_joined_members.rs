//! GET /_matrix/client/v3/rooms/{roomId}/joined_members — Client-Server API, "Getting events for a
//! room".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_appservice::Registration;
use hearth_rooms::{Membership, Room, Visibility};
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use super::parts;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Path};

/// Who is in the room, with names and avatars. An application service may ask about the rooms of all users that it
/// controls, and anybody about a room that the world may read: clients show it before a join, as they show its state.
pub async fn get_joined_members(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Response> {
    let room = match (&auth.appservice, app.rooms.get(&room_id)?) {
        (Some(appservice), Some(room)) if has_user_of(&room, appservice)? => room,
        (_, Some(room)) if room.history_visibility()? == Visibility::WorldReadable => room,
        _ => super::joined_room(&app, &room_id, &auth.user)?,
    };
    super::whole::wait(&room).await?;
    let mut shorts = Vec::new();
    room.visit_members(&mut |_, membership, short| {
        if membership == Membership::Join {
            shorts.push(short);
        }
        true
    })?;
    parts::answer(room, shorts, ("{\"joined\":{", "}}"), |event| {
        let content: Value = serde_json::from_slice(event.pdu.content()).unwrap_or_default();
        let text = |name: &str| content.get(name).filter(|value| value.is_string());
        // Both are always there, as clients have come to expect: null where the member has none.
        let member = json!({ "display_name": text("displayname"), "avatar_url": text("avatar_url") });
        let user = event.pdu.state_key();
        Ok(user.map(|user| format!("{}:{member}", Value::from(user))))
    })
}

fn has_user_of(room: &Room, appservice: &Registration) -> Result<bool> {
    let mut found = false;
    room.visit_local_members(&mut |member| {
        found = appservice.controls_user(member);
        !found
    })?;
    Ok(found)
}
