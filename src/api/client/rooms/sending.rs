//! Sending an event with everything that is checked before a room sees it: now, or when a delayed event is due.

use hearth_core::error::{MatrixError, errcode};
use hearth_rooms::{NewEvent, Room, Txn};
use ruma::{OwnedEventId, OwnedRoomAliasId, RoomId, UserId};
use serde_json::Value;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::extract::guest_refusal;

/// Sends a message event.
pub(crate) async fn send_message(
    app: &App,
    room_id: &RoomId,
    mut event: NewEvent,
    txn: Txn,
) -> Result<OwnedEventId> {
    let room = match super::sending_room(app, room_id, &event.sender) {
        Ok(room) => room,
        Err(refusal) => {
            let before = sent_before(app, room_id, &event.sender, &txn, refusal);
            return Box::pin(before).await;
        }
    };
    super::events::check_content(&room, &event.content)?;
    event.redacts = super::events::redacts(&event.kind, &event.content);
    Ok(room.send(event, Some(txn)).await?.event_id)
}

/// The event that a transaction made, for who asks once more and has left the room since: a retransmission gets the answer
/// of the first request (client-server API, "Transaction identifiers"). What was never sent is refused.
pub(crate) async fn sent_before(
    app: &App,
    room_id: &RoomId,
    sender: &UserId,
    txn: &Txn,
    refusal: ApiError,
) -> Result<OwnedEventId> {
    let Some(room) = app.rooms.get(room_id)? else {
        return Err(refusal);
    };
    room.event_of_txn(sender, txn).await?.ok_or(refusal)
}

/// Sends a state event; one that is there already gives that one.
pub(crate) async fn send_state(
    app: &App,
    room_id: &RoomId,
    mut event: NewEvent,
    txn: Option<Txn>,
) -> Result<OwnedEventId> {
    // In the words in which authorization refuses, so that nobody learns which rooms exist.
    let not_in = || MatrixError::forbidden("You are not in the room.");
    let room = app.rooms.get(room_id)?.ok_or_else(not_in)?;
    let state_key = event.state_key.as_deref().unwrap_or_default();
    // Who is not in the room may change the own membership alone; what else would be wrong with an event shows nothing.
    let is_own_membership = event.kind == "m.room.member" && state_key == event.sender.as_str();
    if !is_own_membership && !room.may_be_joined(&event.sender)? {
        return Err(not_in().into());
    }
    if event.kind == "m.room.power_levels" && state_key.is_empty() {
        check_levels(&room, &event.content)?;
    }
    if event.kind == "m.room.create" {
        return Err(MatrixError::invalid_param("A room is created once").into());
    }
    if event.kind == "m.room.tombstone"
        && super::events::replacement(&event.content).is_some_and(|new| new == room_id.as_str())
    {
        return Err(MatrixError::invalid_param("A room cannot be replaced by itself").into());
    }
    if event.kind == "m.room.canonical_alias" && state_key.is_empty() {
        check_aliases(app, &room, &event.content).await?;
    }
    if event.kind == "m.room.member" {
        if app.user(&event.sender)?.account()?.guest {
            guest_may_join(app, room_id)?;
        }
        let member =
            super::links::check_member_content(app, &room, &event.sender, state_key, &event.content)?;
        event.content =
            serde_json::to_vec(&member.content).map_err(|error| MatrixError::bad_json(error.to_string()))?;
        if member.invites_remote {
            // Also where it is tried again after a crash: the other server has signed it by then.
            if let Some(same) = room.same_state(&event)? {
                return Ok(same);
            }
            return Ok(room.invite_remote_by(&member.target, event).await?.event_id);
        }
    }
    Ok(room.send(event, txn).await?.event_id)
}

/// Refuses guests where a room is not open to them. A room that this server is not in is none that it can let a guest into.
pub(crate) fn guest_may_join(app: &App, room_id: &RoomId) -> Result<()> {
    let room = app.rooms.get(room_id)?.filter(Room::is_decided_here);
    let is_open = match room {
        Some(room) => room.guests_can_join()?,
        None => false,
    };
    match is_open {
        true => Ok(()),
        false => Err(guest_refusal("Guests may not join this room").into()),
    }
}

/// Power levels that no room of this version takes are a mistake of the request, whoever sends them.
fn check_levels(room: &Room, content: &[u8]) -> Result<()> {
    let rules = room.rules();
    let content = hearth_events::canonical::canonicalize(content, rules.strict_json())?;
    hearth_events::PowerLevels::parse(rules, &content)?;
    Ok(())
}

/// New aliases must point to the room (M_BAD_ALIAS), also those of other servers.
async fn check_aliases(app: &App, room: &Room, content: &[u8]) -> Result<()> {
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
        let target = super::elsewhere::resolve_alias(app, &alias).await;
        if target.is_ok_and(|(target, _)| target == room.id()) {
            continue;
        }
        let sentence = format!("The alias {alias} does not point to this room");
        return Err(MatrixError::new(400, errcode::BAD_ALIAS, sentence).into());
    }
    Ok(())
}
