//! A room's heads. The writer's head moves on as soon as an event is numbered; the published view
//! is what readers see, and follows when the batch is durable.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use hearth_events::{CreateInfo, JoinRuleInfo, MemberInfo, PowerLevels, ThirdPartyInviteInfo};
use hearth_storage::Position;
use ruma::{OwnedEventId, OwnedUserId};

use crate::{
    event::Short,
    state_tree::{NodeId, PendingNodes},
};

pub(crate) use crate::head_record::{EventRef, Flat, HeadRecord, Tip, Totals};

/// How many members' parsed events the writer keeps; beyond it the cache starts afresh.
const CACHED_MEMBERS_MAX: usize = 4096;

/// How many threads the writer keeps beyond those that storage does not show yet.
const CACHED_THREADS_MAX: usize = 1024;

/// What is known of a room's rows since it is in memory, so that readers need not look for what cannot be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hints {
    /// The state has been the current one at least since this position.
    pub(crate) root_since: Position,
    /// Nothing relates to events with greater short ids.
    pub(crate) related: Short,
    /// No event with a greater sequence number names a user.
    pub(crate) named: u64,
    /// No counted event with a greater sequence number was redacted.
    pub(crate) uncounted: u64,
}

impl Hints {
    /// Of a room that was just loaded: nothing is known of what it has.
    pub(crate) fn of_loaded(record: &HeadRecord) -> Self {
        Self {
            root_since: record.timeline_position,
            related: record.last_short,
            named: record.last_n,
            uncounted: record.last_n,
        }
    }
}

/// What readers see of a room: everything up to `position` is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Position of the last published batch that changed the room in any way.
    pub position: Position,
    /// Position of the last published batch that added to the timeline or changed the state.
    pub timeline_position: Position,
    /// The newest sequence number.
    pub last_n: u64,
    /// Root of the current state.
    pub root: NodeId,
    /// Where it stands flat.
    pub(crate) flat: Flat,
    /// How many members are joined.
    pub joined: u32,
    /// How many members are invited.
    pub invited: u32,
    /// How many forward extremities there are.
    pub extremities: u32,
    pub(crate) hints: Hints,
}

/// The state that authorization reads, parsed once and replaced as events change it.
#[derive(Default)]
pub(crate) struct AuthCache {
    pub(crate) create: Option<(EventRef, Arc<CreateInfo>)>,
    pub(crate) power: Option<(EventRef, Arc<PowerLevels>)>,
    pub(crate) join_rules: Option<(EventRef, JoinRuleInfo)>,
    pub(crate) members: HashMap<OwnedUserId, Option<(EventRef, MemberInfo)>>,
    pub(crate) invites_3pid: HashMap<String, Option<(EventRef, Arc<ThirdPartyInviteInfo>)>>,
}

impl AuthCache {
    /// Makes room for another member.
    pub(crate) fn bound(&mut self) {
        if self.members.len() >= CACHED_MEMBERS_MAX {
            self.members.clear();
        }
        if self.invites_3pid.len() >= CACHED_MEMBERS_MAX {
            self.invites_3pid.clear();
        }
    }
}

/// A current-state entry: the event, and for `m.room.member` the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateEntry {
    pub(crate) short: Short,
    pub(crate) membership: Membership,
}

/// A membership as stored beside a state entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Membership {
    /// Not a member event, or no membership was ever set.
    #[default]
    None = 0,
    /// `join`
    Join = 1,
    /// `invite`
    Invite = 2,
    /// `leave`
    Leave = 3,
    /// `ban`
    Ban = 4,
    /// `knock`
    Knock = 5,
}

impl Membership {
    /// Reads the stored byte.
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Join,
            2 => Self::Invite,
            3 => Self::Leave,
            4 => Self::Ban,
            5 => Self::Knock,
            _ => Self::None,
        }
    }

    /// Reads the content of a member event; what makes no sense is [`Membership::None`].
    pub(crate) fn of_content(content: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Content<'a> {
            #[serde(borrow)]
            membership: std::borrow::Cow<'a, str>,
        }
        serde_json::from_slice::<Content<'_>>(content)
            .map_or(Self::None, |content| Self::from_word(&content.membership))
    }

    /// Reads the specification's word; an unknown one is [`Membership::None`].
    pub fn from_word(word: &str) -> Self {
        match word {
            "join" => Self::Join,
            "invite" => Self::Invite,
            "leave" => Self::Leave,
            "ban" => Self::Ban,
            "knock" => Self::Knock,
            _ => Self::None,
        }
    }

    /// As the user's room list has it.
    pub(crate) fn of_user(self) -> hearth_users::Membership {
        match self {
            Self::Join => hearth_users::Membership::Join,
            Self::Invite => hearth_users::Membership::Invite,
            Self::Knock => hearth_users::Membership::Knock,
            Self::Ban => hearth_users::Membership::Ban,
            Self::None | Self::Leave => hearth_users::Membership::Leave,
        }
    }

    /// The specification's word; `leave` where there never was a membership.
    pub fn word(self) -> &'static str {
        match self {
            Self::None | Self::Leave => "leave",
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Ban => "ban",
            Self::Knock => "knock",
        }
    }
}

/// What the writer has decided and storage does not show yet, each with the position at which
/// it becomes durable.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) state: HashMap<(String, String), (Position, Option<StateEntry>)>,
    pub(crate) keys: HashMap<(String, String), (Position, u32)>,
    pub(crate) ids: HashMap<OwnedEventId, (Position, Short)>,
    /// The reference hashes of events in `ids`, in room versions that write them.
    pub(crate) hashes: HashMap<OwnedEventId, (Position, [u8; 32])>,
    pub(crate) txns: HashMap<[u8; 16], (Position, OwnedEventId)>,
    pub(crate) nodes: PendingNodes,
    order: VecDeque<(Position, PendingKey)>,
}

enum PendingKey {
    State((String, String)),
    Key((String, String)),
    Id(OwnedEventId),
    Txn([u8; 16]),
}

impl Pending {
    pub(crate) fn add_state(&mut self, at: Position, key: (String, String), entry: Option<StateEntry>) {
        self.order.push_back((at, PendingKey::State(key.clone())));
        self.state.insert(key, (at, entry));
    }

    pub(crate) fn add_key(&mut self, at: Position, key: (String, String), short: u32) {
        self.order.push_back((at, PendingKey::Key(key.clone())));
        self.keys.insert(key, (at, short));
    }

    pub(crate) fn add_id(&mut self, at: Position, id: OwnedEventId, short: Short) {
        self.order.push_back((at, PendingKey::Id(id.clone())));
        self.ids.insert(id, (at, short));
    }

    /// Adds to an event that [`Pending::add_id`] named, or will name, its reference hash.
    pub(crate) fn add_hash(&mut self, at: Position, id: OwnedEventId, hash: [u8; 32]) {
        self.hashes.insert(id, (at, hash));
    }

    pub(crate) fn add_txn(&mut self, at: Position, key: [u8; 16], id: OwnedEventId) {
        self.order.push_back((at, PendingKey::Txn(key)));
        self.txns.insert(key, (at, id));
    }

    /// Forgets what is durable by now.
    pub(crate) fn prune(&mut self, published: Position) {
        while self.order.front().is_some_and(|(at, _)| *at <= published) {
            let Some((at, key)) = self.order.pop_front() else {
                return;
            };
            match key {
                PendingKey::State(key) => remove_if(&mut self.state, &key, at),
                PendingKey::Key(key) => remove_if(&mut self.keys, &key, at),
                PendingKey::Id(key) => {
                    remove_if(&mut self.ids, &key, at);
                    remove_if(&mut self.hashes, &key, at);
                }
                PendingKey::Txn(key) => remove_if(&mut self.txns, &key, at),
            }
        }
        self.nodes.prune(published);
    }
}

fn remove_if<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, (Position, V)>, key: &K, at: Position) {
    if map.get(key).is_some_and(|(newest, _)| *newest <= at) {
        map.remove(key);
    }
}

/// The writer's head.
pub(crate) struct Head {
    pub(crate) record: HeadRecord,
    /// Joined members of each server; zero entries are removed.
    pub(crate) servers: BTreeMap<String, u32>,
    pub(crate) auth: AuthCache,
    pub(crate) pending: Pending,
    /// Threads as the writer knows them, ahead of storage.
    pub(crate) threads: HashMap<Short, crate::relations::Thread>,
    /// The running totals of threads as the writer knows them, ahead of storage.
    pub(crate) thread_counts: HashMap<Short, crate::unread::ThreadCount>,
    /// Until this is durable, stored bytes that authorization reads are changing.
    pub(crate) barrier: Position,
    pub(crate) hints: Hints,
}

impl Head {
    /// Forgets what storage shows by now.
    pub(crate) fn prune(&mut self, published: Position) {
        self.pending.prune(published);
        if self.threads.len() > CACHED_THREADS_MAX && self.record.position <= published {
            self.threads.clear();
        }
        if self.thread_counts.len() > CACHED_THREADS_MAX && self.record.position <= published {
            self.thread_counts.clear();
        }
    }

    /// What readers will see once everything decided so far is durable.
    pub(crate) fn view(&self) -> View {
        View {
            position: self.record.position,
            timeline_position: self.record.timeline_position,
            last_n: self.record.last_n,
            root: self.record.root,
            flat: self.record.flat,
            joined: self.record.joined,
            invited: self.record.invited,
            extremities: u32::try_from(self.record.tips.len()).unwrap_or(u32::MAX),
            hints: self.hints,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_forgets_only_what_is_durable() {
        let mut pending = Pending::default();
        let key = ("m.room.topic".to_owned(), String::new());
        let entry = |short| {
            Some(StateEntry {
                short,
                membership: Membership::None,
            })
        };
        pending.add_state(1, key.clone(), entry(1));
        pending.add_state(3, key.clone(), entry(2));
        pending.prune(2);
        assert_eq!(pending.state[&key].1.map(|entry| entry.short), Some(2));
        pending.prune(3);
        assert!(pending.state.is_empty());
    }
}
