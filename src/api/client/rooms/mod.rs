//! Rooms: creating them, coming and going, sending and reading.

mod ban;
pub(crate) mod elsewhere;
mod events;
mod far_spaces;
mod forget;
mod get_aliases;
mod get_context;
pub(crate) mod get_event;
mod get_hierarchy;
mod get_joined_members;
mod get_joined_rooms;
mod get_members;
mod get_messages;
mod get_relations;
mod get_state;
mod get_state_event;
mod get_summary;
mod get_threads;
mod get_timestamp_to_event;
mod invite;
mod join;
mod kick;
mod knock;
mod leave;
mod links;
mod parts;
mod post_create_room;
mod post_read_markers;
mod post_receipt;
mod post_upgrade;
mod put_redact;
mod put_send;
mod put_state;
mod put_typing;
pub(crate) mod sending;
pub(crate) mod spaces;
pub(crate) mod tokens;
mod unban;
mod whole;

use std::sync::Arc;

use axum::routing::{get, post, put};
use hearth_core::error::MatrixError;
use hearth_rooms::{Event, Membership, Room, Viewer};
use hearth_users::User;
use ruma::{RoomId, UserId};
use serde_json::{Map, Value};

pub use links::Links;

use crate::app::App;
use crate::error::Result;
use crate::extract::Auth;
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let state_event = || get(get_state_event::get_state_event).put(put_state::put_state);
    let state_event_empty = || get(get_state_event::get_state_event_empty).put(put_state::put_state_empty);
    Routes::new()
        .v3("/createRoom", post(post_create_room::post_create_room))
        .v3("/join/{roomIdOrAlias}", post(join::post_join_alias))
        .v3("/knock/{roomIdOrAlias}", post(knock::post_knock))
        .v3("/joined_rooms", get(get_joined_rooms::get_joined_rooms))
        .v3("/rooms/{roomId}/join", post(join::post_join))
        .v3("/rooms/{roomId}/leave", post(leave::post_leave))
        .v3("/rooms/{roomId}/forget", post(forget::post_forget))
        .v3("/rooms/{roomId}/invite", post(invite::post_invite))
        .v3("/rooms/{roomId}/kick", post(kick::post_kick))
        .v3("/rooms/{roomId}/ban", post(ban::post_ban))
        .v3("/rooms/{roomId}/unban", post(unban::post_unban))
        .v3(
            "/rooms/{roomId}/send/{eventType}/{txnId}",
            put(put_send::put_send),
        )
        .v3(
            "/rooms/{roomId}/redact/{eventId}/{txnId}",
            put(put_redact::put_redact),
        )
        .v3("/rooms/{roomId}/state", get(get_state::get_state))
        .v3("/rooms/{roomId}/state/{eventType}", state_event_empty())
        .v3("/rooms/{roomId}/state/{eventType}/", state_event_empty())
        .v3("/rooms/{roomId}/state/{eventType}/{stateKey}", state_event())
        .v3("/rooms/{roomId}/members", get(get_members::get_members))
        .v3(
            "/rooms/{roomId}/joined_members",
            get(get_joined_members::get_joined_members),
        )
        .v3("/rooms/{roomId}/messages", get(get_messages::get_messages))
        .v3("/rooms/{roomId}/event/{eventId}", get(get_event::get_event))
        .v3("/rooms/{roomId}/context/{eventId}", get(get_context::get_context))
        .v1(
            "/rooms/{roomId}/timestamp_to_event",
            get(get_timestamp_to_event::get_timestamp_to_event),
        )
        .v1(
            "/rooms/{roomId}/relations/{eventId}",
            get(get_relations::get_relations),
        )
        .v1(
            "/rooms/{roomId}/relations/{eventId}/{relType}",
            get(get_relations::get_relations_of_type),
        )
        .v1(
            "/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}",
            get(get_relations::get_relations_of_types),
        )
        .once_unstable(
            "/rooms/{roomId}/relations/{eventId}/{relType}",
            get(get_relations::get_relations_of_type),
        )
        .once_unstable(
            "/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}",
            get(get_relations::get_relations_of_types),
        )
        .v1("/rooms/{roomId}/threads", get(get_threads::get_threads))
        .v3("/rooms/{roomId}/aliases", get(get_aliases::get_aliases))
        .v3("/rooms/{roomId}/typing/{userId}", put(put_typing::put_typing))
        .v3(
            "/rooms/{roomId}/receipt/{receiptType}/{eventId}",
            post(post_receipt::post_receipt),
        )
        .v3(
            "/rooms/{roomId}/read_markers",
            post(post_read_markers::post_read_markers),
        )
        .v3("/rooms/{roomId}/upgrade", post(post_upgrade::post_upgrade))
        .v1("/rooms/{roomId}/hierarchy", get(get_hierarchy::get_hierarchy))
        .v1("/room_summary/{roomIdOrAlias}", get(get_summary::get_summary))
        .unstable(
            "im.nheko.summary",
            "/summary/{roomIdOrAlias}",
            get(get_summary::get_summary),
        )
        .unstable(
            "im.nheko.summary",
            "/rooms/{roomIdOrAlias}/summary",
            get(get_summary::get_summary),
        )
}

/// The room with an id, for endpoints that say of a room whether it is known.
pub(crate) fn room(app: &App, id: &RoomId) -> Result<Room> {
    let found = app.rooms.get(id)?;
    Ok(found.ok_or_else(|| MatrixError::not_found("This room is not known here"))?)
}

/// The room, if the user is joined to it.
pub(crate) fn joined_room(app: &App, id: &RoomId, user: &UserId) -> Result<Room> {
    let not_in = || MatrixError::forbidden("You are not in this room");
    let room = app.rooms.get(id)?.ok_or_else(not_in)?;
    if room.membership(user)? != Membership::Join {
        return Err(not_in().into());
    }
    Ok(room)
}

/// A room that a user sends an event to, and is joined to. Authorization decides about the event itself.
pub(crate) fn sending_room(app: &App, id: &RoomId, user: &UserId) -> Result<Room> {
    let not_in = || MatrixError::forbidden("You are not in this room");
    let room = app.rooms.get(id)?.ok_or_else(not_in)?;
    if !room.may_be_joined(user)? {
        return Err(not_in().into());
    }
    Ok(room)
}

/// A room and what a user may read of it: the present, or what was when the user left.
pub(crate) struct Reading {
    /// Who reads.
    pub(crate) user: Option<User>,
    pub(crate) room: Room,
    pub(crate) viewer: Viewer,
    /// The event that ended the user's stay; none while the present may be read.
    pub(crate) left: Option<Arc<Event>>,
}

impl Reading {
    /// Refuses who neither is nor was in the room, unless the world may read it.
    pub(crate) fn begin(app: &App, id: &RoomId, user: &UserId) -> Result<Self> {
        let not_in = || MatrixError::forbidden("You are not in this room, and never were");
        let room = app.rooms.get(id)?.ok_or_else(not_in)?;
        let handle = app.users.get(user)?;
        let ignored = handle.as_ref().map_or(Ok(Arc::default()), User::ignored_users)?;
        let viewer = room.viewer(user)?.ignoring(ignored);
        let mut left = None;
        if viewer.membership() != Membership::Join
            && room.history_visibility()? != hearth_rooms::Visibility::WorldReadable
        {
            let place = viewer.left().ok_or_else(not_in)?;
            if app.is_forgotten(user, id)? {
                return Err(not_in().into());
            }
            left = room.event_at(place)?;
        }
        Ok(Self {
            user: handle,
            room,
            viewer,
            left,
        })
    }

    /// A state event as of what the user may read.
    pub(crate) fn state(&self, kind: &str, state_key: &str) -> Result<Option<Arc<Event>>> {
        Ok(match &self.left {
            None => self.room.state(kind, state_key)?,
            Some(event) => self
                .room
                .state_at(self.room.state_after(event)?, kind, state_key)?,
        })
    }

    /// All state events as of what the user may read.
    pub(crate) fn full_state(&self) -> Result<Vec<Arc<Event>>> {
        Ok(self.room.events(&self.state_shorts()?)?)
    }

    /// The short ids of [`Self::full_state`].
    pub(crate) fn state_shorts(&self) -> Result<Vec<u32>> {
        Ok(match &self.left {
            None => self.room.state_shorts()?,
            Some(event) => self.room.state_shorts_at(self.room.state_after(event)?)?,
        })
    }
}

/// The profile as a member event carries it.
pub(crate) fn member_profile(app: &App, user: &UserId) -> Result<Map<String, Value>> {
    let Some(user) = app.users.get(user)? else {
        return Ok(Map::new());
    };
    let profile = user.profile()?;
    let mut out = Map::new();
    for field in ["displayname", "avatar_url"] {
        if let Some(value) = profile.get(field) {
            out.insert(field.to_owned(), value.clone());
        }
    }
    Ok(out)
}

/// The latest time that an event may carry: canonical JSON has no greater number.
const EVENT_TIME_MAX_MS: u64 = (1 << 53) - 1;

/// The time that an application service claims for an event ("Timestamp massaging").
pub(crate) fn claimed_time(auth: &Auth, ts: Option<u64>) -> Result<Option<u64>, MatrixError> {
    let claimed = ts.filter(|_| auth.appservice.is_some());
    match claimed {
        Some(ts) if ts > EVENT_TIME_MAX_MS => Err(MatrixError::invalid_param("ts is no time of an event")),
        claimed => Ok(claimed),
    }
}

/// The device id that transactions of this request belong to.
pub(crate) fn txn_device(auth: &Auth) -> String {
    match (&auth.device, &auth.appservice) {
        (Some(device), _) => device.to_string(),
        (None, Some(appservice)) => format!("appservice {}", appservice.id),
        (None, None) => String::new(),
    }
}
