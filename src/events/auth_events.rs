//! The list of events that authorize another.

use ruma::{EventId, RoomId, UserId};

use crate::auth::denied;
use crate::json::{get, string};
use crate::{AuthInput, Denied, Membership, Rules};

/// The keys of the state events that an event must name as its authorization events, where the state has them (server-server API, "Auth
/// events selection").
pub fn auth_types(
    rules: &Rules,
    sender: &UserId,
    kind: &str,
    state_key: Option<&str>,
    content: &[u8],
) -> Vec<(String, String)> {
    let mut types: Vec<(String, String)> = Vec::with_capacity(6);
    if kind == "m.room.create" {
        return types;
    }
    let mut add = |kind: &str, state_key: &str| {
        if !types.iter().any(|(k, s)| k == kind && s == state_key) {
            types.push((kind.to_owned(), state_key.to_owned()));
        }
    };
    if !rules.authorization.room_create_event_id_as_room_id {
        add("m.room.create", "");
    }
    add("m.room.power_levels", "");
    add("m.room.member", sender.as_str());
    if kind != "m.room.member" {
        return types;
    }
    let Some(target) = state_key else { return types };
    add("m.room.member", target);
    let membership = get(content, "membership")
        .and_then(string)
        .and_then(|text| Membership::parse(&text));
    if matches!(
        membership,
        Some(Membership::Join | Membership::Invite | Membership::Knock)
    ) {
        add("m.room.join_rules", "");
    }
    if membership == Some(Membership::Invite)
        && let Some(token) = get(content, "third_party_invite")
            .and_then(|i| get(i, "signed"))
            .and_then(|s| get(s, "token"))
            .and_then(string)
    {
        add("m.room.third_party_invite", &token);
    }
    if membership == Some(Membership::Join)
        && rules.authorization.restricted_join_rule
        && let Some(user) = get(content, "join_authorised_via_users_server").and_then(string)
    {
        add("m.room.member", &user);
    }
    types
}

/// An event that another names as its authorization event.
#[derive(Clone, Copy, Debug)]
pub struct AuthEvent<'a> {
    /// Its id.
    pub event_id: &'a EventId,
    /// The room it is in.
    pub room_id: &'a RoomId,
    /// Its type.
    pub kind: &'a str,
    /// Its state key.
    pub state_key: Option<&'a str>,
    /// Whether it was rejected.
    pub rejected: bool,
}

/// Judges the list of authorization events of an event in `room_id`. In room versions where the list lacks the create event, the caller makes
/// sure that the one which [`Rules::create_event_of_room`] names was accepted.
pub fn check_auth_events(
    rules: &Rules,
    event: &AuthInput<'_>,
    room_id: &RoomId,
    auth_events: &[AuthEvent<'_>],
) -> Result<(), Denied> {
    if event.kind == "m.room.create" {
        return Ok(());
    }
    let expected = auth_types(rules, event.sender, event.kind, event.state_key, event.content);
    let mut has_create = false;
    for (index, auth) in auth_events.iter().enumerate() {
        let id = auth.event_id;
        let Some(state_key) = auth.state_key else {
            return denied(format!("The authorization event {id} is not a state event."));
        };
        if auth.room_id != room_id {
            return denied(format!("The authorization event {id} is of another room."));
        }
        if auth_events[..index]
            .iter()
            .any(|other| other.kind == auth.kind && other.state_key == auth.state_key)
        {
            return denied(format!(
                "There are two authorization events for {} with the state key {state_key:?}.",
                auth.kind
            ));
        }
        if !expected
            .iter()
            .any(|(kind, key)| kind == auth.kind && key == state_key)
        {
            return denied(format!(
                "The event {id} ({} with the state key {state_key:?}) cannot authorize this event.",
                auth.kind
            ));
        }
        if auth.rejected {
            return denied(format!("The authorization event {id} was rejected."));
        }
        has_create |= auth.kind == "m.room.create";
    }
    if !has_create && !rules.authorization.room_create_event_id_as_room_id {
        return denied("There is no m.room.create event among the authorization events.");
    }
    Ok(())
}
