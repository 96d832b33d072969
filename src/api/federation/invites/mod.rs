//! Invitations of users of this server, and those made by a third-party identifier.

pub mod put_exchange_third_party_invite;
pub mod put_invite;
pub mod put_invite_v1;
pub mod put_onbind;

use std::sync::Arc;

use axum::routing::put;
use bytes::Bytes;
use hearth_core::error::{MatrixError, errcode};
use hearth_events::Pdu;
use hearth_users::{InviteVerdict, User};
use ruma::{EventId, OwnedUserId, RoomId, RoomVersionId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::membership::refusal;
use super::{V1, V2};
use crate::app::App;
use crate::error::Result;
use crate::ratelimit::Class;
use crate::routes::Routes;

/// Servers send about ten events to show a room; more than this is no invitation.
const STATE_EVENTS_MAX: usize = 100;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let invite = |version: &str| format!("{version}/invite/{{roomId}}/{{eventId}}");
    Routes::new()
        .at(&invite(V1), put(put_invite_v1::put_invite_v1))
        .at(&invite(V2), put(put_invite::put_invite))
        .at(
            &format!("{V1}/exchange_third_party_invite/{{roomId}}"),
            put(put_exchange_third_party_invite::put_exchange_third_party_invite),
        )
        .at(&format!("{V1}/3pid/onbind"), put(put_onbind::put_onbind))
}

/// Takes an invitation of a user of this server and gives the event with this server's signature.
async fn take(
    app: &Arc<App>,
    origin: &ServerName,
    version: &RoomVersionId,
    (room_id, event_id): (&RoomId, &EventId),
    event: &RawValue,
    state: Vec<Box<RawValue>>,
) -> Result<Bytes> {
    app.limits.server(Class::InvitingServer, origin)?;
    if let Some(room) = app.rooms.get(room_id)?
        && !room.acl_allows(origin)?
    {
        let sentence = format!("The room's access control list keeps {origin} out");
        return Err(MatrixError::forbidden(sentence).into());
    }
    check_state(version, room_id, &state)?;
    check_target(app, origin, event)?;
    let text = event.get().as_bytes();
    let taken = app
        .rooms
        .receive_invite(origin, version, room_id, event_id, text, state);
    taken.await.map_err(refusal)
}

/// Refuses invitations of users who do not exist, or do not want this one ("Invite permission").
fn check_target(app: &App, origin: &ServerName, event: &RawValue) -> Result<()> {
    #[derive(Deserialize)]
    struct Event {
        sender: OwnedUserId,
        state_key: OwnedUserId,
    }
    let wrong = || MatrixError::invalid_param("The event does not invite a user of this server");
    let event: Event = serde_json::from_str(event.get()).map_err(|_| wrong())?;
    let target = event.state_key;
    if !app.users.is_local(&target) {
        return Err(wrong().into());
    }
    let user = app.user(&target)?;
    if user.account()?.deactivated {
        return Err(MatrixError::forbidden(format!("{target} has left this server")).into());
    }
    if user.invite_verdict(&event.sender)? == InviteVerdict::Block {
        let sentence = format!("{target} takes no invitations from {}", event.sender);
        return Err(MatrixError::new(403, errcode::INVITE_BLOCKED, sentence).into());
    }
    count_invitation(app, origin, &user)
}

/// Counts an invitation of a user of this server that another server brings. A bridge that is not limited is invited into
/// as many rooms as its users have.
fn count_invitation(app: &App, origin: &ServerName, target: &User) -> Result<()> {
    if !app.limits.on() {
        return Ok(());
    }
    let account = target.account()?;
    let is_maker = |one: &&Arc<hearth_appservice::Registration>| account.appservice.as_ref() == Some(&one.id);
    let made_by = app.appservices.all().iter().find(is_maker);
    if made_by.is_some_and(|one| !one.limits(target.id())) {
        return Ok(());
    }
    app.limits.server_for(Class::InvitedUser, origin, target.id())?;
    Ok(())
}

/// Where the room's id is the hash of its create event, the event must be there and make that id, and everything else must
/// be an event of the room (server-server API, "Inviting to a room"). In older versions nothing ties them together, and
/// servers may let it be.
fn check_state(version: &RoomVersionId, room_id: &RoomId, state: &[Box<RawValue>]) -> Result<()> {
    let Some(rules) = hearth_events::rules(version).filter(|rules| rules.room_id_is_create_hash()) else {
        return Ok(());
    };
    let wrong = |what: &str| MatrixError::invalid_param(format!("`invite_room_state` {what}"));
    if state.len() > STATE_EVENTS_MAX {
        return Err(wrong("has too many events").into());
    }
    let mut has_create = false;
    for event in state {
        let event = Pdu::parse(rules, event.get().as_bytes())
            .map_err(|_| wrong("has an entry that is no event of the room's version"))?;
        if event.room_id() != room_id {
            return Err(wrong("has an event of another room").into());
        }
        has_create |= event.kind() == "m.room.create";
    }
    match has_create {
        true => Ok(()),
        false => Err(wrong("lacks the m.room.create event that makes the room's id").into()),
    }
}
