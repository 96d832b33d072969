//! What a client asks of sliding sync, whichever wire it speaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hearth_users::{PresenceState, User};
use ruma::{OwnedDeviceId, OwnedRoomId};
use serde::{Deserialize, Serialize};

/// The type of membership events.
pub(super) const MEMBER: &str = "m.room.member";

/// A request.
#[derive(Clone)]
pub struct Request {
    /// Who asks.
    pub user: User,
    /// With which device; application services may have none.
    pub device: Option<OwnedDeviceId>,
    /// Which of the device's connections this is.
    pub conn_id: String,
    /// The position of the answer to go on from; none begins anew.
    pub pos: Option<String>,
    /// How long to wait for news.
    pub timeout: Duration,
    /// The presence that syncing gives the user.
    pub set_presence: PresenceState,
    /// Windows over the room list.
    pub lists: BTreeMap<String, List>,
    /// Single rooms.
    pub subscriptions: BTreeMap<OwnedRoomId, RoomConfig>,
    /// What else is wanted.
    pub extensions: Extensions,
    /// Whether the client is told what is unread; a change of that alone is news then.
    pub with_unread: bool,
    /// The most events that the answer may have; with more it is [`crate::Error::Large`].
    pub events_max: usize,
}

/// A window over the rooms that pass a filter.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// From where to where, both included, from the most recently active room on; none is all.
    pub ranges: Option<Vec<(u64, u64)>>,
    /// What is shown of a room.
    pub config: RoomConfig,
    /// Which rooms.
    pub filter: ListFilter,
}

/// What is shown of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomConfig {
    /// How many events, at most.
    pub timeline_limit: usize,
    /// Which state.
    pub required_state: RequiredState,
}

impl RoomConfig {
    /// A number for all of it, with that of what else is wanted of rooms; nothing stores it.
    pub(super) fn number(&self, scopes: u64) -> u64 {
        super::number_of(&format!(
            "{} {} {scopes}",
            self.timeline_limit,
            self.required_state.number()
        ))
    }

    /// Widens this to what another wants too.
    pub(super) fn widen(&mut self, other: &RoomConfig) {
        self.timeline_limit = self.timeline_limit.max(other.timeline_limit);
        self.required_state
            .rules
            .extend(other.required_state.rules.iter().cloned());
    }
}

/// Which state of a room is wanted: whatever one of the rules wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredState {
    /// The rules.
    pub rules: BTreeSet<StateRule>,
}

/// A rule of wanted state.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateRule {
    /// What is wanted.
    #[serde(default)]
    pub include: Vec<StatePattern>,
    /// What of that is not.
    #[serde(default)]
    pub exclude: Vec<StatePattern>,
    /// Whether members come as they are needed, unless they are named.
    #[serde(default)]
    pub lazy_members: bool,
}

/// A type and state key; none stands for any.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StatePattern {
    /// The event type.
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    /// The state key.
    #[serde(default)]
    pub state_key: Option<String>,
}

impl StatePattern {
    fn matches(&self, kind: &str, state_key: &str) -> bool {
        self.kind.as_deref().is_none_or(|wanted| wanted == kind)
            && self.state_key.as_deref().is_none_or(|wanted| wanted == state_key)
    }

    /// Whether it names one member.
    fn names_member(&self) -> bool {
        self.kind.as_deref() == Some(MEMBER) && self.state_key.is_some()
    }

    /// Whether it takes in members.
    fn takes_members(&self) -> bool {
        self.kind.as_deref().is_none_or(|kind| kind == MEMBER)
    }

    /// Whether it takes in all members.
    fn takes_all_members(&self) -> bool {
        self.takes_members() && self.state_key.is_none()
    }
}

impl StateRule {
    fn wants(&self, kind: &str, state_key: &str) -> bool {
        let named_only = self.lazy_members && kind == MEMBER;
        let included = self
            .include
            .iter()
            .any(|pattern| (!named_only || pattern.names_member()) && pattern.matches(kind, state_key));
        included
            && !self
                .exclude
                .iter()
                .any(|pattern| pattern.matches(kind, state_key))
    }

    /// Whether all members are wanted but for some that are named.
    fn wants_all_members(&self) -> bool {
        let includes = self.include.iter().any(StatePattern::takes_all_members);
        !self.lazy_members && includes && !self.exclude.iter().any(StatePattern::takes_all_members)
    }

    /// Whether each member is wanted: then none has to come because of the timeline.
    fn wants_each_member(&self) -> bool {
        self.wants_all_members() && !self.exclude.iter().any(StatePattern::takes_members)
    }
}

impl RequiredState {
    /// One rule.
    pub fn of(rule: StateRule) -> Self {
        Self {
            rules: BTreeSet::from([rule]),
        }
    }

    /// Whether a state event is wanted, apart from members that come as they are needed.
    pub(super) fn wants(&self, kind: &str, state_key: &str) -> bool {
        self.rules.iter().any(|rule| rule.wants(kind, state_key))
    }

    /// Whether all members are wanted, but for some that are named.
    pub(super) fn wants_all_members(&self) -> bool {
        self.rules.iter().any(StateRule::wants_all_members)
    }

    /// Whether members come as they are needed.
    pub(super) fn is_lazy(&self) -> bool {
        let is_lazy = self.rules.iter().any(|rule| rule.lazy_members);
        is_lazy && !self.rules.iter().any(StateRule::wants_each_member)
    }

    /// The patterns to look for, with whether they leave members out.
    pub(super) fn patterns(&self) -> impl Iterator<Item = (&StatePattern, bool)> {
        self.rules.iter().flat_map(|rule| {
            rule.include.iter().map(|pattern| {
                let without_members = rule.lazy_members && !pattern.names_member();
                (pattern, without_members)
            })
        })
    }

    /// A number for what is wanted; it is stored.
    pub(super) fn number(&self) -> u64 {
        super::number_of(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// Which rooms a list has. What is not set leaves no room out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Direct chats, or all others.
    pub is_dm: Option<bool>,
    /// What one of these spaces has as a child.
    pub spaces: Option<BTreeSet<OwnedRoomId>>,
    /// Encrypted rooms, or all others.
    pub is_encrypted: Option<bool>,
    /// Invitations, or all others.
    pub is_invited: Option<bool>,
    /// The types of rooms; none is that of a room without type.
    pub room_types: Option<Vec<Option<String>>>,
    /// The types of rooms that are left out.
    pub not_room_types: Option<Vec<Option<String>>>,
    /// Rooms with one of these tags.
    pub tags: Option<Vec<String>>,
    /// Rooms with none of these tags.
    pub not_tags: Option<Vec<String>>,
    /// What the room's name has in it, in whatever case.
    pub name_like: Option<String>,
}

/// What else is wanted. None of what is absent is answered.
#[derive(Clone, Debug, Default)]
pub struct Extensions {
    /// Messages to the device.
    pub to_device: Option<ToDevice>,
    /// Device lists and key counts.
    pub e2ee: bool,
    /// Account data: all global, and that of rooms in scope.
    pub account_data: Option<Scope>,
    /// Receipts.
    pub receipts: Option<Scope>,
    /// Who types.
    pub typing: Option<Scope>,
    /// Subscriptions to threads (MSC4308).
    pub threads: Option<Threads>,
}

impl Extensions {
    /// A number for what is wanted of which rooms. Where it changes, rooms that the client has may have something for it.
    pub(super) fn scopes(&self) -> u64 {
        super::number_of(&format!(
            "{:?}",
            (&self.account_data, &self.receipts, &self.typing)
        ))
    }
}

/// Which changes of subscriptions to threads are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads {
    /// How many at once, at most.
    pub limit: Option<usize>,
}

/// Which messages to the device are wanted.
#[derive(Clone, Debug, Default)]
pub struct ToDevice {
    /// What the device has got already: the `next_batch` of the last answer.
    pub since: Option<String>,
    /// How many at once, at most.
    pub limit: Option<usize>,
}

/// The rooms that an extension is about, among those that lists or subscriptions show.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Rooms of these lists; none is all lists.
    pub lists: Option<BTreeSet<String>>,
    /// These rooms, `*` is all subscribed ones; none is all subscribed ones.
    pub rooms: Option<BTreeSet<String>>,
}

impl Scope {
    /// Whether a room is in scope that is in some lists and perhaps subscribed to.
    pub(super) fn has(&self, room: &str, lists: &[Arc<str>], subscribed: bool) -> bool {
        let in_list = match &self.lists {
            None => !lists.is_empty(),
            Some(wanted) if wanted.contains("*") => !lists.is_empty(),
            Some(wanted) => lists.iter().any(|list| wanted.contains(&**list)),
        };
        let named = match &self.rooms {
            None => subscribed,
            Some(wanted) => wanted.contains(room) || (subscribed && wanted.contains("*")),
        };
        in_list || named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(kind: &str, key: &str) -> StatePattern {
        let some = |text: &str| (text != "*").then(|| text.to_owned());
        StatePattern {
            kind: some(kind),
            state_key: some(key),
        }
    }

    fn rule(include: &[(&str, &str)], exclude: &[(&str, &str)], lazy_members: bool) -> StateRule {
        let patterns = |list: &[(&str, &str)]| list.iter().map(|(kind, key)| pattern(kind, key)).collect();
        StateRule {
            include: patterns(include),
            exclude: patterns(exclude),
            lazy_members,
        }
    }

    #[test]
    fn rules_match() {
        let everything = rule(&[("*", "*")], &[], false);
        let lazy = rule(&[("*", "*"), (MEMBER, "@me:x")], &[], true);
        let without = rule(&[("*", "*")], &[("m.room.create", ""), (MEMBER, "@a:x")], false);
        let by_key = rule(&[("*", "@a:x")], &[], false);
        for (rule, kind, key, expected) in [
            (&everything, "m.room.name", "", true),
            (&everything, MEMBER, "@a:x", true),
            (&lazy, "m.room.name", "", true),
            (&lazy, MEMBER, "@a:x", false),
            (&lazy, MEMBER, "@me:x", true),
            (&without, "m.room.create", "", false),
            (&without, "m.room.name", "", true),
            (&without, MEMBER, "@a:x", false),
            (&without, MEMBER, "@b:x", true),
            (&by_key, "org.example.s", "@a:x", true),
            (&by_key, "org.example.s", "@b:x", false),
        ] {
            assert_eq!(rule.wants(kind, key), expected, "{rule:?} {kind} {key}");
        }
    }

    #[test]
    fn lazy_is_what_all_agree_to() {
        let required = |rules: &[&StateRule]| RequiredState {
            rules: rules.iter().map(|rule| (*rule).clone()).collect(),
        };
        let lazy = rule(&[("*", "*")], &[], true);
        let members = rule(&[(MEMBER, "*")], &[], false);
        let name = rule(&[("m.room.name", "")], &[], false);
        assert!(required(&[&lazy, &name]).is_lazy());
        assert!(!required(&[&name]).is_lazy());
        assert!(!required(&[&lazy, &members]).is_lazy());
        assert!(required(&[&lazy, &members]).wants(MEMBER, "@any:x"));
        // Who is left out by one rule may be needed by the other.
        let no_members = rule(&[("*", "*")], &[(MEMBER, "*")], false);
        let all_but_one = rule(&[("*", "*")], &[(MEMBER, "@a:x")], false);
        for (without, wants_all) in [(&no_members, false), (&all_but_one, true)] {
            assert_eq!(required(&[without]).wants_all_members(), wants_all);
            assert!(required(&[&lazy, without]).is_lazy());
        }
        let (one, other) = (required(&[&lazy, &name]), required(&[&name, &lazy]));
        assert_eq!(one.number(), other.number());
        assert_ne!(one.number(), required(&[&name]).number());
    }

    #[test]
    fn scopes() {
        let set = |list: &[&str]| Some(list.iter().map(|one| (*one).to_owned()).collect());
        let lists: Vec<Arc<str>> = vec!["all".into()];
        for (scope, lists, subscribed, expected) in [
            (Scope::default(), &lists[..], false, true),
            (Scope::default(), &[], true, true),
            (
                Scope {
                    lists: set(&[]),
                    rooms: set(&[]),
                },
                &lists[..],
                true,
                false,
            ),
            (
                Scope {
                    lists: set(&["other"]),
                    rooms: None,
                },
                &lists[..],
                false,
                false,
            ),
            (
                Scope {
                    lists: set(&["*"]),
                    rooms: None,
                },
                &lists[..],
                false,
                true,
            ),
            (
                Scope {
                    lists: set(&[]),
                    rooms: set(&["*"]),
                },
                &lists[..],
                true,
                true,
            ),
            (
                Scope {
                    lists: set(&[]),
                    rooms: set(&["!r:x"]),
                },
                &lists[..],
                false,
                true,
            ),
        ] {
            assert_eq!(scope.has("!r:x", lists, subscribed), expected, "{scope:?}");
        }
    }
}
