//! What a connection has been sent.
//!
//! Two states of it live: the one that the client is known to have (of the answer whose position it
//! last came with), and what the answer after that adds, which counts once the client comes back with
//! that answer's position. Coming with the old position again drops the addition: nothing is lost.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use hearth_rooms::{Place, Short};
use hearth_storage::{Position, slot_of};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};

use super::{list::ListCache, request::RequiredState};
use crate::{SlidingPos, SyncToken};

/// In how many parts the rooms of a connection are stored.
pub(super) const ROOM_PARTS: u8 = 64;

/// Members that one connection is remembered to know; beyond it the memory starts afresh.
const MEMBERS_MAX: usize = 20_000;

/// Configurations of rooms that a connection remembers; beyond it those that no room uses are dropped.
const CONFIGS_MAX: usize = 64;

/// Rooms in all lists of a connection, together: six lists of a very large account. Beyond it the lists are made anew
/// for each answer.
const LIST_ROOMS_MAX: usize = 100_000;

/// Where it is not known who was said to type.
pub(super) const TYPING_UNKNOWN: u64 = u64::MAX;

/// As what a room was last sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shown {
    /// Not at all.
    #[default]
    Nothing,
    /// As one that the user is in.
    Joined,
    /// As one that the user sees from outside.
    Stripped,
    /// As one that the user was in.
    Left,
}

/// What was sent of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RoomSent {
    pub(super) shown: Shown,
    /// The room list's entry as it was then: where it was changed, and where the membership began.
    pub(super) entry: Position,
    pub(super) began: Position,
    /// The position in the room's shard up to which timeline and state were sent.
    pub(super) seen: Position,
    /// The gap before the oldest event that was sent without a gap after it.
    pub(super) start: Place,
    /// The limit that was in force for the timeline, and the number of the required state.
    pub(super) limit: usize,
    pub(super) config: u64,
    pub(super) is_dm: bool,
    /// Notifications and highlights.
    pub(super) unread: (u64, u64),
    /// How far receipts and account data were sent, if they were wanted.
    pub(super) receipts: Option<Position>,
    pub(super) data: Option<Position>,
    /// A number for who was said to type; 0 for nobody.
    pub(super) typing: u64,
}

impl RoomSent {
    /// What no answer changes that only goes on with the room: as what it is shown, from where on, and how.
    fn frame(&self) -> (Shown, Place, usize, u64) {
        (self.shown, self.start, self.limit, self.config)
    }
}

/// What was sent of the rooms, in the parts in which it is stored: writing one looks at no other.
#[derive(Default)]
pub(super) struct SentRooms(BTreeMap<u8, HashMap<OwnedRoomId, RoomSent>>);

impl SentRooms {
    pub(super) fn get(&self, room: &RoomId) -> Option<&RoomSent> {
        self.0.get(&part_of(room))?.get(room)
    }

    pub(super) fn insert(&mut self, room: OwnedRoomId, sent: RoomSent) {
        self.0.entry(part_of(&room)).or_default().insert(room, sent);
    }

    /// The rooms of a part.
    pub(super) fn of_part(&self, part: u8) -> impl Iterator<Item = (&OwnedRoomId, &RoomSent)> {
        self.0.get(&part).into_iter().flatten()
    }

    fn values(&self) -> impl Iterator<Item = &RoomSent> {
        self.0.values().flat_map(HashMap::values)
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut RoomSent> {
        self.0.values_mut().flat_map(HashMap::values_mut)
    }
}

/// What the client is known to have.
#[derive(Default)]
pub(super) struct State {
    /// The number of the answer.
    pub(super) answer: u64,
    /// How far it went; none before the first.
    pub(super) token: Option<SyncToken>,
    /// How far global account data were sent, if they were wanted.
    pub(super) global: Option<Position>,
    /// How far thread subscriptions were sent, if they were wanted.
    pub(super) threads: Option<Position>,
    /// Whether device lists were sent.
    pub(super) e2ee: bool,
    /// A number for the lists that were asked for.
    pub(super) lists: u64,
    pub(super) rooms: SentRooms,
    /// The position of the user's shard after which the client may have been shown rooms of which nothing is known
    /// here: it came back after a crash with a later answer than was stored.
    pub(super) unsure_since: Option<Position>,
    /// Required states by their numbers.
    pub(super) configs: BTreeMap<u64, Arc<RequiredState>>,
}

/// A room that an answer showed in full.
pub(super) struct Cleared {
    pub(super) no: u32,
    /// Its last touch then.
    pub(super) touched: u64,
    /// For which lists it was read.
    pub(super) lists: Vec<Arc<str>>,
    /// The number of the whole configuration, if the room is subscribed to.
    pub(super) subscription: Option<u64>,
}

/// Members that were sent of a room.
pub(super) struct SentMembers {
    pub(super) room: OwnedRoomId,
    /// Whether what the client knew before counts no more.
    pub(super) anew: bool,
    pub(super) members: Vec<(OwnedUserId, Short)>,
}

/// What an answer adds.
pub(super) struct Pending {
    pub(super) answer: u64,
    pub(super) token: SyncToken,
    pub(super) global: Option<Position>,
    pub(super) threads: Option<Position>,
    pub(super) e2ee: bool,
    pub(super) lists: u64,
    pub(super) rooms: Vec<(OwnedRoomId, RoomSent)>,
    pub(super) cleared: Vec<Cleared>,
    pub(super) members: Vec<SentMembers>,
}

/// A connection.
#[derive(Default)]
pub(super) struct Connection {
    /// Its number: no other connection has it.
    pub(super) number: u64,
    pub(super) state: State,
    /// The last answer that was made; its number is never given again.
    pub(super) last_answer: u64,
    pub(super) pending: Option<Pending>,
    /// The number of the index that the lists are of.
    pub(super) index: u64,
    pub(super) lists: BTreeMap<Arc<str>, ListCache>,
    /// Subscribed rooms that were read: their last touch, and the number of the configuration.
    pub(super) subscriptions: HashMap<u32, (u64, u64)>,
    pub(super) members: KnownMembers,
    /// Read from storage, and no request came yet: the client may have seen more than is known.
    pub(super) restored: bool,
    /// Parts that changed since they were stored.
    pub(super) unstored: BTreeSet<u8>,
    /// When it was last stored; none where it never was.
    pub(super) stored_ms: Option<u64>,
    /// Whether somebody is about to store it.
    pub(super) store_planned: bool,
}

impl Connection {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    /// Goes on from a position, if it is one of the last two answers.
    pub(super) fn go_on(&mut self, pos: &SlidingPos) -> bool {
        if std::mem::take(&mut self.restored) {
            return self.go_on_restored(pos);
        }
        let pending = self.pending.take();
        if pos.answer == self.state.answer {
            return true;
        }
        match pending {
            Some(pending) if pending.answer == pos.answer => {
                self.acknowledge(pending);
                true
            }
            pending => {
                self.pending = pending;
                false
            }
        }
    }

    /// The client has at least what was stored. What it has beyond is sent again, but for what the
    /// position itself tells of.
    fn go_on_restored(&mut self, pos: &SlidingPos) -> bool {
        if let Some(pending) = self.pending.take()
            && pending.answer <= pos.answer
        {
            self.acknowledge(pending);
        }
        if pos.answer < self.state.answer {
            self.restored = true;
            return false;
        }
        if pos.answer > self.state.answer {
            let known = self.state.token.as_ref().map_or(0, |token| token.user);
            self.state.unsure_since = Some(known);
            for sent in self.state.rooms.values_mut() {
                sent.typing = TYPING_UNKNOWN;
            }
        }
        self.state.answer = pos.answer;
        self.last_answer = self.last_answer.max(pos.answer);
        // A position has the shards of the user's rooms alone. Of the others what was stored holds: what is older was seen.
        let mut token = pos.token.clone();
        if let Some(stored) = &self.state.token {
            token.add_shards(stored);
        }
        self.state.token = Some(token);
        let seen = [&mut self.state.global, &mut self.state.threads];
        for seen in seen.into_iter().flatten() {
            *seen = pos.token.user;
        }
        true
    }

    fn acknowledge(&mut self, pending: Pending) {
        let state = &mut self.state;
        state.answer = pending.answer;
        state.token = Some(pending.token);
        state.global = pending.global;
        state.threads = pending.threads;
        state.e2ee = pending.e2ee;
        state.lists = pending.lists;
        for (room, sent) in pending.rooms {
            self.unstored.insert(part_of(&room));
            state.rooms.insert(room, sent);
        }
        self.unstored.insert(0);
        for cleared in &pending.cleared {
            self.clear(cleared);
        }
        for sent in pending.members {
            self.members.add(sent);
        }
        self.bound_configs();
    }

    /// Whether the last answer does more than go on with rooms that the client has: shows one, leaves a gap, shows more.
    pub(super) fn reframes(&self) -> bool {
        let pending = self.pending.iter().flat_map(|pending| &pending.rooms);
        let mut frames = pending.map(|(room, sent)| (self.state.rooms.get(room), sent));
        frames.any(|(before, sent)| before.is_none_or(|before| before.frame() != sent.frame()))
    }

    /// Notes that a room needs no look until it is touched again.
    pub(super) fn clear(&mut self, cleared: &Cleared) {
        for list in &cleared.lists {
            if let Some(list) = self.lists.get_mut(list) {
                list.clear(cleared.no, cleared.touched);
            }
        }
        if let Some(config) = cleared.subscription {
            self.subscriptions.insert(cleared.no, (cleared.touched, config));
        }
    }

    /// Notes at once what no client can notice.
    pub(super) fn note(&mut self, room: OwnedRoomId, sent: RoomSent) {
        self.unstored.insert(part_of(&room));
        self.state.rooms.insert(room, sent);
    }

    fn bound_configs(&mut self) {
        if self.state.configs.len() <= CONFIGS_MAX {
            return;
        }
        let used: BTreeSet<u64> = self.state.rooms.values().map(|sent| sent.config).collect();
        self.state.configs.retain(|number, _| used.contains(number));
    }

    /// Lets go of lists that take too much memory: a client may name many that have all of its rooms.
    pub(super) fn bound_lists(&mut self) {
        if self.lists.values().map(ListCache::count).sum::<usize>() > LIST_ROOMS_MAX {
            self.lists.clear();
        }
    }

    /// Lets go of what belongs to another index: all lists are made anew.
    pub(super) fn on_index(&mut self, index: u64) {
        if self.index != index {
            self.index = index;
            self.lists.clear();
            self.subscriptions.clear();
            if let Some(pending) = &mut self.pending {
                pending.cleared.clear();
            }
        }
    }
}

/// The part in which a room is stored.
pub(super) fn part_of(room: &RoomId) -> u8 {
    let part = slot_of(room.as_str()).get() % u16::from(ROOM_PARTS);
    u8::try_from(part).unwrap_or(0) + 1
}

/// Which members a client was sent. Forgetting is always right: a member may be sent twice.
#[derive(Default)]
pub(super) struct KnownMembers {
    rooms: HashMap<OwnedRoomId, HashMap<OwnedUserId, Short>>,
    count: usize,
}

impl KnownMembers {
    pub(super) fn knows(&self, room: &RoomId, user: &OwnedUserId, short: Short) -> bool {
        self.rooms.get(room).and_then(|members| members.get(user)) == Some(&short)
    }

    fn add(&mut self, sent: SentMembers) {
        if sent.anew {
            self.count -= self.rooms.remove(&sent.room).map_or(0, |members| members.len());
        }
        if self.count + sent.members.len() > MEMBERS_MAX {
            self.rooms.clear();
            self.count = 0;
        }
        if sent.members.is_empty() {
            return;
        }
        let members = self.rooms.entry(sent.room).or_default();
        for (user, short) in sent.members {
            self.count += usize::from(members.insert(user, short).is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    fn pos(answer: u64) -> SlidingPos {
        SlidingPos {
            connection: 7,
            answer,
            token: SyncToken {
                user: 10 * answer,
                ..SyncToken::default()
            },
        }
    }

    fn pending(answer: u64, seen: Position) -> Pending {
        let sent = RoomSent {
            shown: Shown::Joined,
            seen,
            ..RoomSent::default()
        };
        Pending {
            answer,
            token: SyncToken::default(),
            global: Some(1),
            threads: None,
            e2ee: false,
            lists: 0,
            rooms: vec![(room_id!("!r:x").to_owned(), sent)],
            cleared: Vec::new(),
            members: Vec::new(),
        }
    }

    fn seen(connection: &Connection) -> Option<Position> {
        let sent = connection.state.rooms.get(room_id!("!r:x"));
        sent.map(|sent| sent.seen)
    }

    #[test]
    fn an_answer_counts_when_its_position_comes_back() {
        let mut connection = Connection::new(7);
        connection.pending = Some(pending(1, 5));
        assert!(connection.go_on(&pos(1)));
        assert_eq!(seen(&connection), Some(5));
        connection.pending = Some(pending(2, 9));
        assert!(connection.go_on(&pos(1)), "the last position may be asked again");
        assert_eq!(seen(&connection), Some(5));
        assert!(!connection.go_on(&pos(2)), "an answer that was dropped");
        connection.pending = Some(pending(3, 9));
        assert!(connection.go_on(&pos(3)));
        assert!(!connection.go_on(&pos(1)), "an older position");
        assert_eq!(seen(&connection), Some(9));
    }

    #[test]
    fn a_restored_connection_goes_on_from_newer_positions() {
        let restored = |answer, with: Option<Pending>| Connection {
            state: State {
                answer,
                global: Some(1),
                ..State::default()
            },
            pending: with,
            restored: true,
            ..Connection::new(7)
        };
        for (stored, after, comes, expected) in [
            (2, None, 2, Some(None)),
            (2, None, 9, Some(None)),
            (2, None, 1, None),
            (2, Some(3), 2, Some(None)),
            (2, Some(3), 3, Some(Some(5))),
            (2, Some(3), 4, Some(Some(5))),
        ] {
            let mut connection = restored(stored, after.map(|answer| pending(answer, 5)));
            let goes_on = connection.go_on(&pos(comes));
            assert_eq!(
                goes_on.then(|| seen(&connection)),
                expected,
                "{stored} {after:?} {comes}"
            );
            if goes_on {
                assert_eq!(connection.state.answer, comes);
                assert_eq!(connection.state.global, Some(10 * comes));
            }
        }
    }
}
