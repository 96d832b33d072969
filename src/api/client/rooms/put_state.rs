//! PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey} — Client-Server API, "Sending
//! events to a room".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::{MatrixError, errcode};
use hearth_rooms::{NewEvent, Room};
use ruma::{OwnedRoomAliasId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query, RawJson};
use crate::ratelimit::Class;

#[derive(Deserialize)]
pub struct Options {
    ts: Option<u64>,
}

/// Sends a state event with an empty state key.
pub async fn put_state_empty(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, kind)): Path<(OwnedRoomId, String)>,
    Query(options): Query<Options>,
    RawJson(content): RawJson,
) -> Result<Json<Value>> {
    put(&app, &auth, &room_id, kind, String::new(), options, &content).await
}

/// Sends a state event.
pub async fn put_state(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, kind, state_key)): Path<(OwnedRoomId, String, String)>,
    Query(options): Query<Options>,
    RawJson(content): RawJson,
) -> Result<Json<Value>> {
    put(&app, &auth, &room_id, kind, state_key, options, &content).await
}

async fn put(
    app: &App,
    auth: &Auth,
    room_id: &OwnedRoomId,
    kind: String,
    state_key: String,
    options: Options,
    content: &[u8],
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.count(app, Class::Send)?;
    let room = super::room(app, room_id)?;
    if kind == "m.room.create" {
        return Err(MatrixError::invalid_param("A room is created once").into());
    }
    if kind == "m.room.canonical_alias" && state_key.is_empty() {
        check_aliases(app, &room, content)?;
    }
    let mut content = content.to_vec();
    if kind == "m.room.member" {
        let member = super::links::check_member_content(app, &auth.user, &state_key, &content)?;
        if member.invites_remote {
            let sent = room
                .invite_remote(&auth.user, &member.target, member.content)
                .await?;
            return Ok(Json(json!({ "event_id": sent.event_id })));
        }
        content =
            serde_json::to_vec(&member.content).map_err(|error| MatrixError::bad_json(error.to_string()))?;
    }
    let event = NewEvent {
        sender: auth.user.clone(),
        kind,
        state_key: Some(state_key),
        content,
        redacts: None,
        timestamp_ms: super::claimed_time(auth, options.ts),
    };
    if let Some(same) = room.same_state(&event)? {
        return Ok(Json(json!({ "event_id": same })));
    }
    let sent = room.send(event, None).await?;
    Ok(Json(json!({ "event_id": sent.event_id })))
}

/// New aliases must point to the room (M_BAD_ALIAS).
fn check_aliases(app: &App, room: &Room, content: &[u8]) -> Result<()> {
    let aliases = |content: &[u8]| -> Result<Vec<String>, MatrixError> {
        let content: Value =
            serde_json::from_slice(content).map_err(|_| MatrixError::not_json("The content is not JSON"))?;
        let wrong = || MatrixError::invalid_param("alias is no string, or alt_aliases no list of strings");
        let mut out = Vec::new();
        match content.get("alias") {
            None | Some(Value::Null) => {}
            Some(Value::String(alias)) if alias.is_empty() => {}
            Some(Value::String(alias)) => out.push(alias.clone()),
            Some(_) => return Err(wrong()),
        }
        match content.get("alt_aliases") {
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) => {
                for alias in list {
                    out.push(alias.as_str().ok_or_else(wrong)?.to_owned());
                }
            }
            Some(_) => return Err(wrong()),
        }
        Ok(out)
    };
    let before = match room.state("m.room.canonical_alias", "")? {
        Some(event) => aliases(event.pdu.content()).unwrap_or_default(),
        None => Vec::new(),
    };
    for alias in aliases(content)? {
        if before.contains(&alias) {
            continue;
        }
        let alias = OwnedRoomAliasId::try_from(alias.as_str())
            .map_err(|_| MatrixError::invalid_param(format!("{alias:?} is not a room alias")))?;
        let target = app.rooms.alias(&alias)?;
        if target.is_none_or(|target| target.room_id != room.id()) {
            let sentence = format!("The alias {alias} does not point to this room");
            return Err(MatrixError::new(400, errcode::BAD_ALIAS, sentence).into());
        }
    }
    Ok(())
}
