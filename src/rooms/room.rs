//! The handle of one room, and what readers do with it.

use std::{
    collections::HashSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hearth_events::{CreateInfo, Rules};
use hearth_storage::{EntityKey, Family, Position, Reader, ShardId};
use parking_lot::{Mutex, RwLock};
use ruma::{EventId, OwnedRoomId, RoomId, ServerName, UserId};

use crate::{
    Error, Rooms,
    event::{Event, Short},
    head::{Head, Membership, StateEntry, View},
    keys,
    state_tree::{self, NodeId},
    typing::Typing,
};

/// A room of this server. Cheap to clone; its methods do not show where the room's shard is.
#[derive(Clone)]
pub struct Room(pub(crate) Arc<RoomInner>);

pub(crate) struct RoomInner {
    pub(crate) id: OwnedRoomId,
    pub(crate) key: EntityKey,
    pub(crate) shard: ShardId,
    pub(crate) rules: &'static Rules,
    pub(crate) rooms: Arc<Rooms>,
    /// Lock order: nothing else is locked while this is held but the log's own lock.
    pub(crate) head: Mutex<Head>,
    pub(crate) view: RwLock<Arc<View>>,
    /// Position of the last published receipt.
    pub(crate) receipts_position: AtomicU64,
    /// The room is being removed: nothing is added to it any more. Set while the head is locked.
    pub(crate) closed: AtomicBool,
    /// Receipts that are on their way. Lock order: nothing else is locked while this is held but the log's own lock.
    pub(crate) pending_receipts: Mutex<crate::receipts::PendingReceipts>,
    pub(crate) create: OnceLock<Arc<CreateInfo>>,
    pub(crate) visibility_key: OnceLock<u32>,
    pub(crate) typing: Mutex<Typing>,
    /// Memberships that are asked for again and again.
    pub(crate) members: crate::member_cache::MemberCache,
    /// The newest rows of the timeline.
    pub(crate) tail: crate::tail::Tail,
    /// What is known of the rest of the state, where it is not whole.
    pub(crate) partial: tokio::sync::watch::Sender<Option<Arc<crate::partial::PartialState>>>,
    /// Who fetches it.
    pub(crate) resync: crate::partial::Resync,
    /// Position of the batch that made it whole.
    pub(crate) full_since: AtomicU64,
    /// The servers that were known to be in the room until then. Not kept over a restart.
    pub(crate) servers_until_full: Mutex<Vec<ruma::OwnedServerName>>,
    /// What the state lacks since the join.
    pub(crate) lacking: Mutex<Option<crate::lacking::Lacking>>,
    /// For want of what events of a state were left out.
    pub(crate) lacks: Mutex<crate::lacking::Lacks>,
    /// Held while a state is laid out, until it is the current one.
    pub(crate) laying: tokio::sync::Mutex<()>,
    /// The state that is laid out where nobody reads it.
    pub(crate) laid: Mutex<Option<crate::lay::LaidOut>>,
    /// Held while an event of another server is judged: one at a time, in order.
    pub(crate) receiving: tokio::sync::Mutex<()>,
    /// Whether history may be missing before some event.
    pub(crate) gaps: crate::may::May,
    /// Whether any event may relate to another.
    pub(crate) relations: crate::may::May,
    /// Whether events may wait for others that they refer to.
    pub(crate) awaited: crate::may::May,
    /// Whether any event may ever have named a policy server.
    pub(crate) policy: crate::may::May,
}

/// An entry of the state that differs: the event as it was, and as it is.
pub type StateChange = (Option<Short>, Option<Short>);

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Room").field(&self.0.id).finish()
    }
}

impl Room {
    /// The room's id.
    pub fn id(&self) -> &RoomId {
        &self.0.id
    }

    /// The room's number in its slot.
    pub fn key(&self) -> EntityKey {
        self.0.key
    }

    /// The shard that orders the room's batches.
    pub fn shard(&self) -> ShardId {
        self.0.shard
    }

    /// The rules of the room's version.
    pub fn rules(&self) -> &'static Rules {
        self.0.rules
    }

    /// What the create event says.
    pub fn create_info(&self) -> Arc<CreateInfo> {
        self.0
            .create
            .get()
            .expect("set before the room is handed out")
            .clone()
    }

    /// Takes what the create event says from the writer's head.
    pub(crate) fn learn_create(&self) -> Result<(), Error> {
        let head = self.0.head.lock();
        let (_, info) = head.auth.create.as_ref().ok_or(Error::Damaged("create event"))?;
        drop(self.0.create.set(info.clone()));
        Ok(())
    }

    /// The published head.
    pub fn view(&self) -> Arc<View> {
        self.0.view.read().clone()
    }

    /// Position of the last published batch that changed anything that `/sync` shows of the room.
    pub fn changed_position(&self) -> Position {
        self.view()
            .position
            .max(self.0.receipts_position.load(Ordering::Acquire))
    }

    /// Position of the last published batch beside the timeline: one that set a receipt, or told of devices.
    pub fn receipts_position(&self) -> Position {
        self.0.receipts_position.load(Ordering::Acquire)
    }

    /// Has nothing be added from now on.
    pub(crate) fn close(&self) {
        let _head = self.0.head.lock();
        self.0.closed.store(true, Ordering::Release);
    }

    /// An error where the room is being removed.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self.0.closed.load(Ordering::Acquire) {
            true => Err(Error::NotFound(format!("room {} is not known here", self.id()))),
            false => Ok(()),
        }
    }

    pub(crate) fn reader(&self) -> &dyn Reader {
        self.0.rooms.reader()
    }

    /// Whether there is a row of the room's index with this prefix.
    pub(crate) fn has_rows(&self, prefix: &[u8]) -> Result<bool, Error> {
        let mut found = false;
        let end = hearth_storage::prefix_end(prefix);
        self.reader()
            .scan(Family::RoomIndex, prefix, &end, false, &mut |_, _| {
                found = true;
                false
            })?;
        Ok(found)
    }

    /// The event with a short id.
    pub fn event(&self, short: Short) -> Result<Option<Arc<Event>>, Error> {
        self.0.rooms.cached_event(self, short)
    }

    /// The event with an id, if the room has it.
    pub fn event_by_id(&self, id: &EventId) -> Result<Option<Arc<Event>>, Error> {
        match self.short_of(id)? {
            Some(short) => self.event(short),
            None => Ok(None),
        }
    }

    /// The event with an id, if it has a place in the timeline: one that clients may know of.
    pub fn shown_event(&self, id: &EventId) -> Result<Option<Arc<Event>>, Error> {
        Ok(self
            .event_by_id(id)?
            .filter(|event| event.header.place != crate::Place::default()))
    }

    /// The short id of an event id.
    pub fn short_of(&self, id: &EventId) -> Result<Option<Short>, Error> {
        let value = self
            .reader()
            .get(Family::RoomEventId, &keys::event_id(self.0.key, id))?;
        value
            .map(|bytes| keys::read_u32_value(&bytes, "event id"))
            .transpose()
    }

    /// The current state event of a type and state key.
    pub fn state(&self, kind: &str, state_key: &str) -> Result<Option<Arc<Event>>, Error> {
        match self.state_entry(kind, state_key)? {
            Some(entry) => self.event(entry.short),
            None => Ok(None),
        }
    }

    pub(crate) fn state_entry(&self, kind: &str, state_key: &str) -> Result<Option<StateEntry>, Error> {
        let stored = || self.stored_state_entry(kind, state_key);
        match kind {
            "m.room.member" => self.0.members.entry(state_key, stored),
            _ => stored(),
        }
    }

    /// Where the current state stands flat.
    fn state_family(&self) -> Family {
        self.0.view.read().flat.family()
    }

    fn stored_state_entry(&self, kind: &str, state_key: &str) -> Result<Option<StateEntry>, Error> {
        let value = self
            .reader()
            .get(self.state_family(), &keys::state(self.0.key, kind, state_key))?;
        value.map(|bytes| keys::read_state_entry(&bytes)).transpose()
    }

    /// All events of the current state.
    pub fn full_state(&self) -> Result<Vec<Arc<Event>>, Error> {
        self.events(&self.state_shorts()?)
    }

    /// The short ids of [`Self::full_state`].
    pub fn state_shorts(&self) -> Result<Vec<Short>, Error> {
        let (start, end) = keys::entity_range(self.0.key);
        self.shorts_of_range(&start, &end)
    }

    /// The current state events of one type.
    pub fn state_of_type(&self, kind: &str) -> Result<Vec<Arc<Event>>, Error> {
        self.events(&self.state_shorts_of_type(kind)?)
    }

    /// The short ids of [`Self::state_of_type`].
    pub fn state_shorts_of_type(&self, kind: &str) -> Result<Vec<Short>, Error> {
        let (start, end) = keys::state_type_range(self.0.key, kind);
        self.shorts_of_range(&start, &end)
    }

    /// The short ids of the current state events that are no members.
    pub fn state_shorts_without_members(&self) -> Result<Vec<Short>, Error> {
        let (start, end) = keys::entity_range(self.0.key);
        let (members, after) = keys::state_type_range(self.0.key, "m.room.member");
        let mut shorts = self.shorts_of_range(&start, &members)?;
        shorts.extend(self.shorts_of_range(&after, &end)?);
        Ok(shorts)
    }

    fn shorts_of_range(&self, start: &[u8], end: &[u8]) -> Result<Vec<Short>, Error> {
        let mut shorts = Vec::new();
        let mut failure = None;
        self.reader()
            .scan(self.state_family(), start, end, false, &mut |_, value| {
                match keys::read_state_entry(value) {
                    Ok(entry) => shorts.push(entry.short),
                    Err(error) => failure = Some(error),
                }
                failure.is_none()
            })?;
        match failure {
            Some(error) => Err(error),
            None => Ok(shorts),
        }
    }

    /// The events of the state with the given root that are no members: costs those, and what differs from the current
    /// state.
    pub fn state_without_members_at(&self, root: NodeId) -> Result<Vec<Arc<Event>>, Error> {
        self.events(&self.state_shorts_without_members_at(root)?)
    }

    /// The short ids of [`Self::state_without_members_at`].
    pub fn state_shorts_without_members_at(&self, root: NodeId) -> Result<Vec<Short>, Error> {
        let current = self.view().root;
        let mut shorts = self.state_shorts_without_members()?;
        if root == current {
            return Ok(shorts);
        }
        let (mut gone, mut came) = (HashSet::new(), Vec::new());
        for (now, then) in self.state_changes(current, root)? {
            gone.extend(now);
            came.extend(then);
        }
        let came = self.events(&came)?.into_iter();
        let came = came.filter(|event| event.pdu.kind() != "m.room.member");
        shorts.retain(|short| !gone.contains(short));
        shorts.extend(came.map(|event| event.short));
        Ok(shorts)
    }

    /// Events by short id, in the order asked; unknown ones are left out.
    pub fn events(&self, shorts: &[Short]) -> Result<Vec<Arc<Event>>, Error> {
        self.0.rooms.cached_events(self, shorts)
    }

    /// Visits the current members in the order of their ids; stop by returning false.
    pub fn visit_members(
        &self,
        visit: &mut dyn FnMut(&UserId, Membership, Short) -> bool,
    ) -> Result<(), Error> {
        let (start, end) = keys::state_type_range(self.0.key, "m.room.member");
        let skip = start.len();
        self.reader()
            .scan(self.state_family(), &start, &end, false, &mut |key, value| {
                let user = std::str::from_utf8(&key[skip..])
                    .ok()
                    .and_then(|id| <&UserId>::try_from(id).ok());
                match (user, keys::read_state_entry(value)) {
                    (Some(user), Ok(entry)) => visit(user, entry.membership, entry.short),
                    _ => true,
                }
            })?;
        Ok(())
    }

    /// The current membership of a user.
    pub fn membership(&self, user: &UserId) -> Result<Membership, Error> {
        let entry = self.state_entry("m.room.member", user.as_str())?;
        Ok(entry.map_or(Membership::None, |entry| entry.membership))
    }

    /// Whether a user is joined, asked before an event of the user is decided under the room's lock: a member whom
    /// authorization has read already is not looked up again.
    pub fn may_be_joined(&self, user: &UserId) -> Result<bool, Error> {
        let is_known = {
            let head = self.0.head.lock();
            let known = head.auth.members.get(user).and_then(Option::as_ref);
            known.is_some_and(|(_, info)| info.membership == hearth_events::Membership::Join)
        };
        Ok(is_known || self.membership(user)? == Membership::Join)
    }

    /// The room's short number for a state key, if any event ever had it.
    pub fn state_key_short(&self, kind: &str, state_key: &str) -> Result<Option<u32>, Error> {
        let stored = || self.stored_state_key(kind, state_key);
        match kind {
            "m.room.member" => self.0.members.key(state_key, stored),
            _ => stored(),
        }
    }

    fn stored_state_key(&self, kind: &str, state_key: &str) -> Result<Option<u32>, Error> {
        let value = self
            .reader()
            .get(Family::RoomStateKey, &keys::state(self.0.key, kind, state_key))?;
        value
            .map(|bytes| keys::read_u32_value(&bytes, "state key"))
            .transpose()
    }

    /// The state event of a type and key in the state with the given root.
    pub fn state_at(&self, root: NodeId, kind: &str, state_key: &str) -> Result<Option<Arc<Event>>, Error> {
        let Some(key) = self.state_key_short(kind, state_key)? else {
            return Ok(None);
        };
        match self.state_short_at(root, key)? {
            Some(short) => self.event(short),
            None => Ok(None),
        }
    }

    pub(crate) fn state_short_at(&self, root: NodeId, key: u32) -> Result<Option<Short>, Error> {
        Ok(state_tree::get(&self.nodes(), root, key)?)
    }

    /// All state events of the state with the given root.
    pub fn full_state_at(&self, root: NodeId) -> Result<Vec<Arc<Event>>, Error> {
        self.events(&self.state_shorts_at(root)?)
    }

    /// The short ids of [`Self::full_state_at`].
    pub fn state_shorts_at(&self, root: NodeId) -> Result<Vec<Short>, Error> {
        let mut shorts = Vec::new();
        state_tree::iter(&self.nodes(), root, &mut |_, short| shorts.push(short))?;
        Ok(shorts)
    }

    /// The events of state `new` whose entries differ from state `old`; entries that are gone
    /// from `new` are not named. Costs what differs.
    pub fn state_diff(&self, old: NodeId, new: NodeId) -> Result<Vec<Short>, Error> {
        let mut changed = Vec::new();
        state_tree::diff(&self.nodes(), old, new, &mut |_, _, after| changed.extend(after))?;
        Ok(changed)
    }

    /// As [`Self::state_diff`], with the events that were replaced or are gone: each entry that differs
    /// as it was and as it is.
    pub fn state_changes(&self, old: NodeId, new: NodeId) -> Result<Vec<StateChange>, Error> {
        let mut changed = Vec::new();
        state_tree::diff(&self.nodes(), old, new, &mut |_, before, after| {
            changed.push((before, after))
        })?;
        Ok(changed)
    }

    /// The root of the state after an event.
    pub fn state_after(&self, event: &Event) -> Result<NodeId, Error> {
        let before = event.header.state_before;
        let Some(state_key) = event.pdu.state_key() else {
            return Ok(before);
        };
        if event.header.flags.has(crate::Flags::REJECTED) {
            return Ok(before);
        }
        let Some(key) = self.state_key_short(event.pdu.kind(), state_key)? else {
            return Ok(before);
        };
        let mut new = state_tree::NewNodes::default();
        let root = state_tree::apply(&self.nodes(), before, &[(key, Some(event.short))], &mut new)?;
        // The nodes stand in storage already: they were written when the event was accepted.
        Ok(root)
    }

    /// The root of the room's current state as it was at a log position; the empty state before
    /// the first.
    pub fn state_root_at(&self, position: Position) -> Result<NodeId, Error> {
        let view = self.view();
        if view.timeline_position <= position || view.hints.root_since <= position {
            return Ok(view.root);
        }
        let start = keys::state_at(self.0.key, 0);
        let end = keys::state_at(self.0.key, position.saturating_add(1));
        let mut root = Ok(NodeId::EMPTY);
        self.reader()
            .scan(Family::RoomStateAt, &start, &end, true, &mut |_, value| {
                root = keys::read_root(value);
                false
            })?;
        root
    }

    pub(crate) fn nodes(&self) -> state_tree::CachedStore<'_> {
        self.0.rooms.node_store(self.0.key)
    }

    /// The newest events, on which the next one will build, as far as they are durable.
    pub fn tips(&self) -> Result<Vec<Arc<Event>>, Error> {
        let tips: Vec<Short> = {
            let head = self.0.head.lock();
            head.record.tips.iter().map(|tip| tip.event.short).collect()
        };
        self.events(&tips)
    }

    /// Whether a server has a joined member in the room, or is said to while the state is partial.
    pub fn may_have_server(&self, server: &ruma::ServerName) -> bool {
        let said = |partial: &crate::partial::PartialState| partial.servers.iter().any(|name| name == server);
        self.has_server(server.as_str()) || self.0.partial.borrow().as_deref().is_some_and(said)
    }

    /// How many joined members a server has in the room.
    pub fn joined_of(&self, server: &ServerName) -> u32 {
        let head = self.0.head.lock();
        head.servers.get(server.as_str()).copied().unwrap_or(0)
    }

    /// Whether a server has a joined member in the room.
    pub fn has_server(&self, server: &str) -> bool {
        self.0.head.lock().servers.contains_key(server)
    }
}
