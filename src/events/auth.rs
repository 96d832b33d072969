//! The authorization rules (room versions, "Authorization rules"): whether the state of a room allows an event.

use std::sync::Arc;

use ruma::{EventId, OwnedEventId, RoomId, UserId};

use crate::auth_member::check_member;
use crate::auth_power::check_power_levels;
use crate::json::{get, string};
use crate::state::additional_creators;
use crate::state_key::{self, check_state_key};
use crate::{
    CreateInfo, Draft, JoinRuleInfo, MemberInfo, Membership, Pdu, Power, PowerField, PowerLevels, PowerView,
    Rules, ThirdPartyInviteInfo,
};

/// Why an event may not be in the room, as a sentence to its sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

pub(crate) fn denied<T>(reason: impl Into<String>) -> Result<T, Denied> {
    Err(Denied(reason.into()))
}

/// The room state that an event is judged by. Whoever implements it keeps what was parsed, so that a question costs a look-up.
pub trait StateView {
    /// The create event.
    fn create(&self) -> Option<Arc<CreateInfo>>;
    /// The power levels, if the room has such an event.
    fn power_levels(&self) -> Option<Arc<PowerLevels>>;
    /// The join rule; [`JoinRuleInfo::default`] if the room has no such event.
    fn join_rule(&self) -> JoinRuleInfo;
    /// The member event of a user.
    fn member(&self, user: &UserId) -> Option<MemberInfo>;
    /// The third party invite with this token.
    fn third_party_invite(&self, token: &str) -> Option<Arc<ThirdPartyInviteInfo>>;
}

/// What authorization asks of an event.
#[derive(Clone, Copy, Debug)]
pub struct AuthInput<'a> {
    /// The event's id, once it has one. Asked for in room versions 1 and 2 only.
    pub event_id: Option<&'a EventId>,
    /// The `room_id` of the event; `None` for a create event that names its room itself.
    pub room_id: Option<&'a RoomId>,
    /// Who sends it.
    pub sender: &'a UserId,
    /// Its type.
    pub kind: &'a str,
    /// Its state key.
    pub state_key: Option<&'a str>,
    /// Its content in canonical JSON.
    pub content: &'a [u8],
    /// The events it follows.
    pub prev_events: &'a [OwnedEventId],
    /// What it redacts.
    pub redacts: Option<&'a EventId>,
}

impl<'a> AuthInput<'a> {
    /// Reads it from an event.
    pub fn of_pdu(rules: &Rules, pdu: &'a Pdu) -> AuthInput<'a> {
        let names_room = pdu.kind() == "m.room.create" && rules.room_id_is_create_hash();
        AuthInput {
            event_id: Some(&pdu.event_id),
            room_id: (!names_room).then(|| pdu.room_id()),
            sender: pdu.sender(),
            kind: pdu.kind(),
            state_key: pdu.state_key(),
            content: pdu.content(),
            prev_events: pdu.prev_events(),
            redacts: pdu.redacts(),
        }
    }

    /// Reads it from an event that shall be made.
    pub fn of_draft(draft: &Draft<'a>) -> AuthInput<'a> {
        AuthInput {
            event_id: None,
            room_id: draft.room_id,
            sender: draft.sender,
            kind: draft.kind,
            state_key: draft.state_key,
            content: draft.content,
            prev_events: draft.prev_events,
            redacts: draft.redacts,
        }
    }
}

/// Whether the room's state allows an event (room versions, "Authorization rules"). The list of authorization events is judged by
/// [`check_auth_events`], signatures by [`crate::verify_event_signatures`].
pub fn authorize(rules: &Rules, event: &AuthInput<'_>, state: &dyn StateView) -> Result<(), Denied> {
    if event.kind == "m.room.create" {
        return check_create(rules, event);
    }
    let Some(create) = state.create() else {
        return denied("The room has no m.room.create event.");
    };
    if !create.federate && create.sender.server_name() != event.sender.server_name() {
        return denied(format!(
            "The room is only for users of {}.",
            create.sender.server_name()
        ));
    }
    if rules.authorization.special_case_room_aliases && event.kind == "m.room.aliases" {
        return match event.state_key == Some(event.sender.server_name().as_str()) {
            true => Ok(()),
            false => denied("The state key of m.room.aliases must be the sender's server name."),
        };
    }
    if event.kind == "m.room.member" {
        return check_member(rules, event, &create, state);
    }
    if state.member(event.sender).map(|member| member.membership) != Some(Membership::Join) {
        return denied("You are not in the room.");
    }
    let levels = state.power_levels();
    let view = PowerView::new(&create, levels.as_deref());
    let power = view.user(event.sender);
    if event.kind == "m.room.third_party_invite" {
        return demand(power, view.field(PowerField::Invite), "invite");
    }
    let needed = view.needed_for(event.kind, event.state_key.is_some());
    if !power.reaches(needed) {
        demand(power, needed, &format!("send {}", event.kind))?;
    }
    check_owner(rules, event, &view, power)?;
    if event.kind == "m.room.power_levels" {
        return check_power_levels(rules, event, &create, levels.as_deref(), power);
    }
    if rules.authorization.special_case_room_redaction && event.kind == "m.room.redaction" {
        return check_redaction(event, &view, power);
    }
    Ok(())
}

/// State whose key begins with a user id is that user's (room versions, "Authorization rules"); where the version has owned state,
/// the id may be followed by an underscore and more, and more power than the owner's opens it (MSC3757).
fn check_owner(
    rules: &Rules,
    event: &AuthInput<'_>,
    view: &PowerView<'_>,
    power: Power,
) -> Result<(), Denied> {
    let Some(state_key) = event.state_key else {
        return Ok(());
    };
    if rules.owned_state {
        check_state_key(rules, state_key).map_err(|error| Denied(format!("{error}.")))?;
    }
    if !state_key.starts_with('@') || state_key == event.sender.as_str() {
        return Ok(());
    }
    match state_key::owner(rules, state_key) {
        Some(owner) if rules.owned_state && (owner == event.sender || power > view.user(owner)) => Ok(()),
        Some(owner) if rules.owned_state => denied(format!(
            "The state key {state_key} is for {owner} and users with more power."
        )),
        _ => denied(format!("The state key {state_key} is for that user alone.")),
    }
}

/// Whether a redaction that was accepted may take effect on an event of `redacted_sender` (room version 3 and later, "Handling redactions").
pub fn may_redact(view: &PowerView<'_>, redactor: &UserId, redacted_sender: &UserId) -> bool {
    redactor.server_name() == redacted_sender.server_name()
        || view.user(redactor).reaches(view.field(PowerField::Redact))
}

/// Demands power for an action.
pub(crate) fn demand(power: Power, needed: i64, action: &str) -> Result<(), Denied> {
    if power.reaches(needed) {
        return Ok(());
    }
    denied(format!(
        "You need power level {needed} to {action}, you have {power}."
    ))
}

fn check_create(rules: &Rules, event: &AuthInput<'_>) -> Result<(), Denied> {
    if !event.prev_events.is_empty() {
        return denied("An m.room.create event cannot follow other events.");
    }
    match event.room_id {
        Some(_) if rules.authorization.room_create_event_id_as_room_id => {
            return denied("An m.room.create event has no `room_id` in this room version.");
        }
        None if !rules.authorization.room_create_event_id_as_room_id => {
            return denied("The m.room.create event lacks its `room_id`.");
        }
        Some(room_id) if room_id.server_name() != Some(event.sender.server_name()) => {
            return denied("The room id is not of the sender's server.");
        }
        _ => {}
    }
    if let Some(version) = get(event.content, "room_version")
        && string(version).as_deref() != Some(rules.version.as_str())
    {
        return denied(format!("The room version is not {}.", rules.version));
    }
    let creator = get(event.content, "creator").filter(|value| *value != b"null");
    if !rules.authorization.use_room_create_sender && creator.is_none() {
        return denied("The m.room.create event lacks its `creator`.");
    }
    additional_creators(rules, event.content)
        .map(drop)
        .map_err(|error| Denied(format!("{error}.")))
}

fn check_redaction(event: &AuthInput<'_>, view: &PowerView<'_>, power: Power) -> Result<(), Denied> {
    let needed = view.field(PowerField::Redact);
    // An event of ours that has no id yet will get one of the sender's server.
    let server = event
        .event_id
        .map_or(Some(event.sender.server_name()), |id| id.server_name());
    if power.reaches(needed) || (server.is_some() && event.redacts.and_then(|id| id.server_name()) == server)
    {
        return Ok(());
    }
    denied(format!(
        "You need power level {needed} to redact events of other servers, you have {power}."
    ))
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
