//! A room's heads. The writer's head moves on as soon as an event is numbered; the published view
//! is what readers see, and follows when the batch is durable.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use hearth_events::{CreateInfo, JoinRuleInfo, MemberInfo, PowerLevels, ThirdPartyInviteInfo};
use hearth_storage::Position;
use ruma::{OwnedEventId, OwnedUserId};
use smallvec::SmallVec;

use crate::{
    Error,
    codec::{Cursor, put_bytes, put_varint},
    event::{Short, decode_event_id, encode_event_id},
    state_tree::{NodeId, PendingNodes},
};

/// The tag of the head record's first encoding.
const HEAD_V1: u8 = 1;

/// The tag of the encoding in which each forward extremity has the root of the state after it.
const HEAD_V2: u8 = 2;

/// The tag of the encoding in which the totals of threads stand apart.
const HEAD_V3: u8 = 3;

/// How many members' parsed events the writer keeps; beyond it the cache starts afresh.
const CACHED_MEMBERS_MAX: usize = 4096;

/// How many threads the writer keeps beyond those that storage does not show yet.
const CACHED_THREADS_MAX: usize = 1024;

/// An event that later events cite: a forward extremity, or a member of the auth state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventRef {
    pub(crate) short: Short,
    pub(crate) id: OwnedEventId,
}

/// A forward extremity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) event: EventRef,
    pub(crate) depth: u64,
    /// Root of the state after it.
    pub(crate) root: NodeId,
}

/// Running totals of a timeline: the unread count is the difference of two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) notify: u32,
    pub(crate) highlight: u32,
    /// The part of `notify` that is in threads.
    pub(crate) thread_notify: u32,
    /// The part of `highlight` that is in threads.
    pub(crate) thread_highlight: u32,
    /// How many members were joined after the event: push rules ask. 0 where it was not noted.
    pub(crate) joined: u32,
}

impl Totals {
    pub(crate) fn add(&mut self, class: hearth_events::notification::Class, in_thread: bool) {
        self.notify += u32::from(class.notify);
        self.highlight += u32::from(class.highlight);
        if in_thread {
            self.thread_notify += u32::from(class.notify);
            self.thread_highlight += u32::from(class.highlight);
        }
    }
}

/// The stored part of the writer's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadRecord {
    /// The greatest short id given out.
    pub(crate) last_short: Short,
    /// The greatest short state key given out.
    pub(crate) last_state_key: u32,
    /// The greatest sequence number given out.
    pub(crate) last_n: u64,
    /// The greatest depth of any event.
    pub(crate) depth: u64,
    /// Position of the last batch that changed the room.
    pub(crate) position: Position,
    /// Position of the last batch that added to the timeline.
    pub(crate) timeline_position: Position,
    /// How many events of the timeline notify, and how many highlight, under the default push rules.
    pub(crate) totals: Totals,
    /// Root of the current state.
    pub(crate) root: NodeId,
    /// Joined and invited members.
    pub(crate) joined: u32,
    pub(crate) invited: u32,
    /// The forward extremities.
    pub(crate) tips: SmallVec<[Tip; 2]>,
}

impl Default for HeadRecord {
    fn default() -> Self {
        Self {
            last_short: 0,
            last_state_key: 0,
            last_n: 0,
            depth: 0,
            position: 0,
            timeline_position: 0,
            totals: Totals::default(),
            root: NodeId::EMPTY,
            joined: 0,
            invited: 0,
            tips: SmallVec::new(),
        }
    }
}

impl HeadRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(100);
        out.push(HEAD_V3);
        for value in [
            u64::from(self.last_short),
            u64::from(self.last_state_key),
            self.last_n,
            self.depth,
            self.position,
            self.timeline_position,
            u64::from(self.joined),
            u64::from(self.invited),
            u64::from(self.totals.notify),
            u64::from(self.totals.highlight),
            u64::from(self.totals.thread_notify),
            u64::from(self.totals.thread_highlight),
            self.tips.len() as u64,
        ] {
            put_varint(&mut out, value);
        }
        out.extend_from_slice(&self.root.0);
        for tip in &self.tips {
            put_varint(&mut out, u64::from(tip.event.short));
            put_varint(&mut out, tip.depth);
            put_bytes(&mut out, &encode_event_id(&tip.event.id));
            out.extend_from_slice(&tip.root.0);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, "room head");
        let tag = cursor.u8()?;
        if !matches!(tag, HEAD_V1 | HEAD_V2 | HEAD_V3) {
            return Err(cursor.damaged());
        }
        let mut head = HeadRecord {
            last_short: cursor.u32()?,
            last_state_key: cursor.u32()?,
            last_n: cursor.varint()?,
            depth: cursor.varint()?,
            position: cursor.varint()?,
            timeline_position: cursor.varint()?,
            joined: cursor.u32()?,
            invited: cursor.u32()?,
            totals: Totals {
                notify: cursor.u32()?,
                highlight: cursor.u32()?,
                ..Totals::default()
            },
            ..HeadRecord::default()
        };
        head.totals.joined = head.joined;
        if tag == HEAD_V3 {
            head.totals.thread_notify = cursor.u32()?;
            head.totals.thread_highlight = cursor.u32()?;
        }
        let tips = cursor.varint()?;
        head.root = NodeId(cursor.take(16)?.try_into().map_err(|_| cursor.damaged())?);
        for _ in 0..tips {
            let short = cursor.u32()?;
            let depth = cursor.varint()?;
            let id = decode_event_id(cursor.bytes()?).ok_or_else(|| cursor.damaged())?;
            // Rooms of the first encoding have one extremity, and the state after it is the current one.
            let root = match tag {
                HEAD_V1 => head.root,
                _ => NodeId(cursor.take(16)?.try_into().map_err(|_| cursor.damaged())?),
            };
            head.tips.push(Tip {
                event: EventRef { short, id },
                depth,
                root,
            });
        }
        Ok(head)
    }
}

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
                PendingKey::Id(key) => remove_if(&mut self.ids, &key, at),
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
    fn head_record_round_trips() {
        let id = OwnedEventId::try_from("$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg").unwrap();
        let head = HeadRecord {
            last_short: 9,
            last_state_key: 7,
            last_n: 300,
            depth: 301,
            position: 12345,
            timeline_position: 12344,
            totals: Totals {
                notify: 200,
                highlight: 2,
                thread_notify: 20,
                thread_highlight: 1,
                joined: 3,
            },
            root: NodeId([7; 16]),
            joined: 3,
            invited: 1,
            tips: SmallVec::from_vec(vec![Tip {
                event: EventRef { short: 9, id },
                depth: 301,
                root: NodeId([8; 16]),
            }]),
        };
        let bytes = head.encode();
        assert_eq!(HeadRecord::decode(&bytes).unwrap(), head);
        for cut in 0..bytes.len() {
            assert!(HeadRecord::decode(&bytes[..cut]).is_err());
        }
    }

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
