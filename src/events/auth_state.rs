use std::collections::HashMap;
use std::sync::Arc;

use ruma::{EventId, UserId};

use crate::{
    CreateInfo, Error, JoinRuleInfo, MemberInfo, Pdu, PowerLevels, Rules, StateView, ThirdPartyInviteInfo,
};

/// The part of a room's state that authorization reads, from single events: the authorization events of an event, or the state before it.
///
/// Of two events with the same type and state key the later added one counts. In room versions where the create event is never listed among
/// the authorization events, it must be added all the same.
#[derive(Clone, Debug, Default)]
pub struct AuthState {
    create: Option<Arc<CreateInfo>>,
    power_levels: Option<Arc<PowerLevels>>,
    join_rule: Option<JoinRuleInfo>,
    members: HashMap<Box<str>, Option<MemberInfo>>,
    third_party_invites: HashMap<Box<str>, Arc<ThirdPartyInviteInfo>>,
}

impl AuthState {
    /// A state without events.
    pub fn new() -> AuthState {
        AuthState::default()
    }

    /// The state of these events; rejected ones are left to the caller. Gives the first error of [`AuthState::add`].
    pub fn from_events<'a>(
        rules: &Rules,
        events: impl IntoIterator<Item = &'a Pdu>,
    ) -> Result<AuthState, Error> {
        let mut state = AuthState::new();
        for event in events {
            state.add(rules, event)?;
        }
        Ok(state)
    }

    /// Adds an event. What is no state event, or of a type that authorization does not read, changes nothing.
    ///
    /// An event that was accepted can be read, so an error tells that this one should not have been. The state then holds what allows least:
    /// no create event, power levels where nobody is listed, or a user who is not in the room.
    pub fn add(&mut self, rules: &Rules, event: &Pdu) -> Result<(), Error> {
        let Some(state_key) = event.state_key() else {
            return Ok(());
        };
        let content = AuthContent::parse(
            rules,
            event.kind(),
            state_key,
            &event.event_id,
            event.sender(),
            event.content(),
        );
        let (content, error) = match content {
            Ok(content) => (content, None),
            Err(error) => (AuthContent::unreadable(event.kind(), event.sender()), Some(error)),
        };
        self.put(state_key, content);
        error.map_or(Ok(()), Err)
    }

    pub(crate) fn put(&mut self, state_key: &str, content: AuthContent) {
        match content {
            AuthContent::Create(create) => self.create = create,
            AuthContent::PowerLevels(levels) => self.power_levels = Some(levels),
            AuthContent::JoinRules(rule) => self.join_rule = Some((*rule).clone()),
            AuthContent::Member(member) => {
                self.members.insert(state_key.into(), member);
            }
            AuthContent::ThirdPartyInvite(invite) => {
                self.third_party_invites.insert(state_key.into(), invite);
            }
            AuthContent::Nothing => {}
        }
    }
}

impl StateView for AuthState {
    fn create(&self) -> Option<Arc<CreateInfo>> {
        self.create.clone()
    }

    fn power_levels(&self) -> Option<Arc<PowerLevels>> {
        self.power_levels.clone()
    }

    fn join_rule(&self) -> JoinRuleInfo {
        self.join_rule.clone().unwrap_or_default()
    }

    fn member(&self, user: &UserId) -> Option<MemberInfo> {
        self.members.get(user.as_str()).copied().flatten()
    }

    fn third_party_invite(&self, token: &str) -> Option<Arc<ThirdPartyInviteInfo>> {
        self.third_party_invites.get(token).cloned()
    }
}

/// What authorization reads of one state event. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum AuthContent {
    /// `None` for a create event that cannot be read.
    Create(Option<Arc<CreateInfo>>),
    PowerLevels(Arc<PowerLevels>),
    JoinRules(Arc<JoinRuleInfo>),
    /// `None` for a member event that cannot be read.
    Member(Option<MemberInfo>),
    ThirdPartyInvite(Arc<ThirdPartyInviteInfo>),
    /// Authorization does not read such events.
    Nothing,
}

impl AuthContent {
    pub fn parse(
        rules: &Rules,
        kind: &str,
        state_key: &str,
        event_id: &EventId,
        sender: &UserId,
        content: &[u8],
    ) -> Result<AuthContent, Error> {
        Ok(match kind {
            "m.room.member" => AuthContent::Member(Some(MemberInfo::parse(content)?)),
            "m.room.third_party_invite" => {
                AuthContent::ThirdPartyInvite(Arc::new(ThirdPartyInviteInfo::parse(sender, content)))
            }
            "m.room.create" if state_key.is_empty() => AuthContent::Create(Some(Arc::new(
                CreateInfo::parse(rules, event_id, sender, content)?,
            ))),
            "m.room.power_levels" if state_key.is_empty() => {
                AuthContent::PowerLevels(Arc::new(PowerLevels::parse(rules, content)?))
            }
            "m.room.join_rules" if state_key.is_empty() => {
                AuthContent::JoinRules(Arc::new(JoinRuleInfo::parse(content)))
            }
            _ => AuthContent::Nothing,
        })
    }

    /// What stands for an event that cannot be read.
    pub fn unreadable(kind: &str, sender: &UserId) -> AuthContent {
        match kind {
            "m.room.create" => AuthContent::Create(None),
            "m.room.power_levels" => AuthContent::PowerLevels(Arc::default()),
            "m.room.join_rules" => AuthContent::JoinRules(Arc::new(JoinRuleInfo::parse(b"{}"))),
            "m.room.member" => AuthContent::Member(None),
            "m.room.third_party_invite" => {
                AuthContent::ThirdPartyInvite(Arc::new(ThirdPartyInviteInfo::parse(sender, b"{}")))
            }
            _ => AuthContent::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{JoinRule, Membership, PowerField};

    fn event(kind: &str, state_key: Option<&str>, content: Value) -> Pdu {
        let mut event = json!({"auth_events": [], "content": content, "depth": 1, "hashes": {"sha256": "x"}, "origin_server_ts": 5,
            "prev_events": [], "room_id": "!r:s", "sender": "@a:s", "signatures": {}, "type": kind});
        if let Some(state_key) = state_key {
            event["state_key"] = json!(state_key);
        }
        Pdu::parse(rules(), event.to_string().as_bytes()).unwrap()
    }

    fn rules() -> &'static Rules {
        crate::rules(&ruma::RoomVersionId::V11).unwrap()
    }

    fn user(id: &str) -> &UserId {
        id.try_into().unwrap()
    }

    #[test]
    fn what_authorization_reads() {
        let events = [
            event("m.room.create", Some(""), json!({"m.federate": false})),
            event("m.room.power_levels", Some(""), json!({"ban": 7})),
            event("m.room.join_rules", Some(""), json!({"join_rule": "public"})),
            event("m.room.member", Some("@a:s"), json!({"membership": "join"})),
            event("m.room.member", Some("@a:s"), json!({"membership": "leave"})),
            event("m.room.third_party_invite", Some("token"), json!({})),
            event("m.room.name", Some(""), json!({"name": "n"})),
            event("m.room.message", None, json!({})),
            event("m.room.create", Some("other"), json!({})),
            event("m.room.power_levels", None, json!({"ban": 8})),
        ];
        let state = AuthState::from_events(rules(), &events).unwrap();
        let create = state.create().unwrap();
        assert_eq!((create.federate, &create.event_id), (false, &events[0].event_id));
        assert_eq!(state.power_levels().unwrap().field(PowerField::Ban), 7);
        assert_eq!(state.join_rule().rule, JoinRule::Public);
        assert_eq!(state.member(user("@a:s")).unwrap().membership, Membership::Leave);
        assert_eq!(state.member(user("@b:s")), None);
        assert_eq!(state.third_party_invite("token").unwrap().sender, "@a:s");
        assert!(state.third_party_invite("other").is_none());
    }

    #[test]
    fn nothing_is_added() {
        let state = AuthState::new();
        assert!(state.create().is_none() && state.power_levels().is_none());
        assert_eq!(state.join_rule().rule, JoinRule::Invite);
    }

    #[test]
    fn what_cannot_be_read_allows_least() {
        let mut state = AuthState::new();
        let join = event("m.room.member", Some("@a:s"), json!({"membership": "join"}));
        state.add(rules(), &join).unwrap();
        let odd = [
            event("m.room.create", Some(""), json!({"m.federate": 5})),
            event("m.room.power_levels", Some(""), json!({"ban": "7"})),
            event("m.room.member", Some("@a:s"), json!({"membership": 5})),
        ];
        for event in &odd {
            state.add(rules(), event).unwrap_err();
        }
        assert!(state.create().is_none());
        assert_eq!(*state.power_levels().unwrap(), PowerLevels::default());
        assert_eq!(state.member(user("@a:s")), None);
        state
            .add(rules(), &event("m.room.join_rules", Some(""), json!({})))
            .unwrap();
        assert_eq!(state.join_rule().rule, JoinRule::Other);
    }
}
