//! Rooms: input, graph, state, timeline, membership, relations, directory, history visibility.
//!
//! An operation goes through [`Room`], the handle of one room. It is decided under the room's lock
//! on the writer's head, becomes one batch of the room's shard, and shows to readers when that
//! batch is durable (`docs/life-of-a-message.md`).

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use dashmap::DashMap;
use hearth_cluster::Cluster;
use hearth_core::{clock::SharedClock, random::SharedRandom};
use hearth_events::KeyPair;
use hearth_storage::{EntityKey, EntityKind, Family, Log, Position, Published, Reader, ShardId};
use parking_lot::RwLock;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, UserId};

mod annotations;
mod client_event;
mod codec;
mod create;
mod dance;
mod device_lists;
mod directory;
mod erased;
mod error;
mod event;
mod event_room;
mod guests;
mod head;
mod head_record;
mod input;
mod judge_again;
mod keys;
mod lacking;
mod lay;
mod load;
mod locks;
mod may;
mod member_cache;
mod membership;
mod observe;
mod old_transactions;
mod partial;
mod policy;
mod purge;
mod receipts;
mod receive;
mod relations;
mod remote;
mod remote_members;
mod room;
#[cfg(test)]
mod room_tests;
mod serve;
mod staging;
pub mod state_tree;
mod stripped;
mod tail;
mod timeline;
mod together;
mod typing;
mod unread;
mod unread_list;
mod unread_own;
mod unread_rows;
mod unread_totals;
mod upgrade;
mod visibility;

pub use client_event::{Format, Rendering};
pub use create::{CreateRoom, Preset};
pub use dance::Awaited;
pub use directory::{AliasRecord, DirectoryEntry, DirectoryPage, DirectoryToken};
pub use error::Error;
pub use event::{Event, Flags, Header, Origin, Place, Short};
pub use event_room::EventRoom;
pub use head::{Membership, View};
/// The push rules of a user, which unread counts go by.
pub use hearth_events::push::Rules as PushRules;
pub use input::{DELAYED_DEVICE, NewEvent, Sent, Txn};
pub use observe::Extremities;
pub use policy::{POLICY_KEY_ID, PolicyServer};
pub use purge::{FEDERATION_DUTY, Purged};
pub use receipts::{Receipt, ReceiptKind};
pub use receive::Received;
pub use relations::{Bundle, Relation, RelationRow, Thread};
pub use remote::{
    Dance, KeyAt, Made, RemoteEvents, RemoteFailure, RemoteServers, RemoteState, SendJoin, StateIds,
};
pub use remote_members::Indexed;
pub use room::{Room, StateChange};
pub use serve::{JoinAnswer, Missing, ServedState, ServerViewer};
pub use staging::MemberChange;
pub use state_tree::NodeId;
pub use timeline::Page;
pub use unread::{Counts, Unread, UnreadUser};
pub use unread_list::{Notified, NotifiedWanted};
pub use visibility::{Sees, Viewer, Visibility};

/// About so much memory a loaded room takes, with what it keeps of its members and of its timeline's end. As many rooms
/// are kept as fit into their share of the memory; beyond it, those that nobody uses are dropped.
const LOADED_ROOM_BYTES: u64 = 8 << 10;
/// So many rooms are kept however little memory there is.
const LOADED_ROOMS_MIN: usize = 500;

/// What a durable batch, or something that lives in memory, changed in a room.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The timeline or the state.
    pub timeline: bool,
    /// The receipts.
    pub receipts: bool,
    /// Who is typing.
    pub typing: bool,
    /// The devices or keys of a member.
    pub devices: bool,
    /// Memberships.
    pub members: Vec<MemberChange>,
    /// When the operation began, of one that adds events.
    pub began: Option<std::time::Instant>,
}

/// A notice that a room changed: a hint to read, given after the change is readable.
pub struct Changed<'a> {
    /// The room.
    pub room: &'a Room,
    /// What changed.
    pub change: &'a Change,
    /// The batch's position in the room's shard; the last one where no batch was needed (typing).
    pub position: Position,
    /// The events that were added, in order.
    pub added: &'a [Arc<Event>],
}

type Listener = Box<dyn Fn(&Changed<'_>) + Send + Sync>;

/// What the rooms of a server share.
pub struct RoomsConfig {
    /// The server's name.
    pub server_name: OwnedServerName,
    /// The key that signs events.
    pub signing_key: Arc<KeyPair>,
    /// The version of rooms that are created without one.
    pub default_version: RoomVersionId,
    /// Bytes for cached events.
    pub event_cache_bytes: u64,
    /// Bytes for cached nodes of state maps.
    pub node_cache_bytes: u64,
    /// Bytes for rooms that are loaded and that nobody uses now.
    pub loaded_rooms_bytes: u64,
    /// Where state resolution and the checking of signatures run.
    pub pool: hearth_core::Pool,
}

#[derive(Clone)]
struct EventWeight;

impl quick_cache::Weighter<(EntityKey, Short), Arc<Event>> for EventWeight {
    fn weight(&self, _: &(EntityKey, Short), event: &Arc<Event>) -> u64 {
        event.weight() as u64
    }
}

type EventCache = quick_cache::sync::Cache<(EntityKey, Short), Arc<Event>, EventWeight>;

/// All rooms of the server.
pub struct Rooms {
    pub(crate) log: Arc<Log>,
    pub(crate) cluster: Arc<Cluster>,
    /// Sends that are done together.
    pub(crate) together: together::Together,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
    pub(crate) server_name: OwnedServerName,
    pub(crate) signing_key: Arc<KeyPair>,
    pub(crate) default_version: RoomVersionId,
    pub(crate) loaded: DashMap<OwnedRoomId, Room>,
    /// How many rooms are kept, and above how many those that nobody uses are looked for: more than that where most are
    /// in use, so that not every room that is loaded looks at all others.
    loaded_max: usize,
    sweep_above: AtomicUsize,
    /// Ids of loaded rooms by their numbers, which are what feeds name.
    ids: DashMap<EntityKey, OwnedRoomId>,
    /// The loaded rooms whose state is partial.
    pub(crate) partial: dashmap::DashSet<OwnedRoomId>,
    events: EventCache,
    nodes: state_tree::NodeCache,
    listeners: RwLock<Vec<Listener>>,
    early_listeners: RwLock<Vec<Listener>>,
    /// What was counted for users with rules of their own.
    pub(crate) own_counts: unread_own::OwnCounts,
    pub(crate) directory: directory::DirectoryIndex,
    pub(crate) erased: erased::Erased,
    pub(crate) alias_locks: locks::NameLocks,
    /// One join of a room through other servers at a time.
    pub(crate) join_locks: locks::NameLocks,
    pub(crate) joining: dance::Joining,
    pub(crate) own_leaves: dance::OwnLeaves,
    pub(crate) event_rooms: Arc<serve::EventRooms>,
    /// Ids of rooms that are being created.
    pub(crate) starting: parking_lot::Mutex<std::collections::HashSet<OwnedRoomId>>,
    ephemeral: AtomicU64,
    ephemeral_start: u64,
    remote: std::sync::OnceLock<Arc<dyn RemoteServers>>,
    pub(crate) pool: hearth_core::Pool,
    /// Where work runs that nobody waits for.
    pub(crate) chores: hearth_core::Pool,
    /// What resolving states took, by room.
    pub(crate) costs: observe::Costs,
}

impl Rooms {
    /// Opens the rooms in a log. Listens to what the log publishes from now on.
    pub fn new(
        log: Arc<Log>,
        cluster: Arc<Cluster>,
        clock: SharedClock,
        random: SharedRandom,
        config: RoomsConfig,
    ) -> Arc<Self> {
        let mut start = [0; 8];
        random.fill(&mut start);
        let events = EventCache::with_weighter(
            (config.event_cache_bytes / 1024) as usize,
            config.event_cache_bytes,
            EventWeight,
        );
        let loaded_max = usize::try_from(config.loaded_rooms_bytes / LOADED_ROOM_BYTES).unwrap_or(usize::MAX);
        let loaded_max = loaded_max.max(LOADED_ROOMS_MIN);
        let rooms = Arc::new(Self {
            log: log.clone(),
            cluster,
            together: together::Together::default(),
            clock,
            random,
            server_name: config.server_name,
            signing_key: config.signing_key,
            default_version: config.default_version,
            loaded: DashMap::new(),
            loaded_max,
            sweep_above: AtomicUsize::new(loaded_max),
            ids: DashMap::new(),
            partial: dashmap::DashSet::new(),
            events,
            nodes: state_tree::NodeCache::new(config.node_cache_bytes),
            listeners: RwLock::new(Vec::new()),
            early_listeners: RwLock::new(Vec::new()),
            own_counts: unread_own::cache(),
            directory: directory::DirectoryIndex::default(),
            erased: erased::Erased::read(log.engine().as_ref()),
            alias_locks: locks::NameLocks::default(),
            join_locks: locks::NameLocks::default(),
            joining: dance::Joining::default(),
            own_leaves: dance::OwnLeaves::default(),
            event_rooms: Arc::new(serve::EventRooms::new(&log)),
            starting: parking_lot::Mutex::default(),
            ephemeral: AtomicU64::new(0),
            ephemeral_start: u64::from_be_bytes(start) >> 16,
            remote: std::sync::OnceLock::new(),
            chores: config.pool.beside(1),
            pool: config.pool,
            costs: observe::Costs::default(),
        });
        directory::register(&rooms);
        device_lists::register(&rooms);
        let weak = Arc::downgrade(&rooms);
        // Before, so that who reads at the published position finds the heads of rooms there.
        log.before_publish(Box::new(move |published| {
            if let (Some(rooms), Some(note)) = (weak.upgrade(), note_of(published)) {
                rooms.move_view(note, published.position);
                let note_of_change = Changed {
                    room: &note.room,
                    change: &note.change,
                    position: published.position,
                    added: &note.added,
                };
                rooms
                    .early_listeners
                    .read()
                    .iter()
                    .for_each(|listener| listener(&note_of_change));
            }
        }));
        let weak = Arc::downgrade(&rooms);
        log.on_publish(Box::new(move |published| {
            let Some(rooms) = weak.upgrade() else { return };
            rooms.event_rooms.published();
            rooms.erased.published(published, rooms.reader());
            if let Some(note) = note_of(published) {
                let went = note.change.members.iter();
                let went =
                    went.filter(|member| member.before == Membership::Join && member.after != member.before);
                went.for_each(|member| note.room.set_typing(&member.user, None));
                rooms.notify(&note.room, &note.change, published.position, &note.added);
            }
        }));
        rooms
    }

    /// Calls `listener` for each durable batch of a room before its position is published: for what a
    /// reader at that position must find in memory. It must be quick, and wake nobody.
    pub fn before_change(&self, listener: Listener) {
        self.early_listeners.write().push(listener);
    }

    /// Calls `listener` after each change of a room, once it is readable.
    pub fn on_change(&self, listener: Listener) {
        self.listeners.write().push(listener);
    }

    /// Says how other servers are reached. Until then, and where nobody says it, there are none.
    pub fn set_remote(&self, remote: Arc<dyn RemoteServers>) {
        assert!(
            self.remote.set(remote).is_ok(),
            "other servers are reached in one way"
        );
    }

    /// The other servers.
    pub(crate) fn remote(&self) -> Result<&Arc<dyn RemoteServers>, Error> {
        let alone = || Error::Forbidden("This server does not talk to others".to_owned());
        self.remote.get().ok_or_else(alone)
    }

    /// The server's name.
    pub fn server_name(&self) -> &ruma::ServerName {
        &self.server_name
    }

    /// Whether a user belongs to this server.
    pub fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.server_name
    }

    /// The log that the rooms are in.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Returns when what a room's change at a position means for others, such as for the room lists of its members, is
    /// applied and durable.
    pub async fn delivered(&self, shard: ShardId, position: Position) {
        self.cluster.delivered(shard, position).await;
    }

    /// The version of rooms that are created without one.
    pub fn default_version(&self) -> &RoomVersionId {
        &self.default_version
    }

    /// A number that tells this start of the process from others, and the counter of what lives
    /// in memory only (typing).
    pub fn ephemeral(&self) -> (u64, u64) {
        (self.ephemeral_start, self.ephemeral.load(Ordering::Acquire))
    }

    pub(crate) fn next_ephemeral(&self) -> u64 {
        self.ephemeral.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The room with an id, if this server has it.
    pub fn get(self: &Arc<Self>, id: &RoomId) -> Result<Option<Room>, Error> {
        if let Some(room) = self.loaded.get(id) {
            return Ok(Some(room.clone()));
        }
        let Some(key) = hearth_storage::entity(self.reader(), EntityKind::Room, id.as_str())? else {
            return Ok(None);
        };
        if self.loaded.len() > self.sweep_above.load(Ordering::Relaxed) {
            self.drop_unused();
        }
        match self.loaded.entry(id.to_owned()) {
            dashmap::Entry::Occupied(found) => Ok(Some(found.get().clone())),
            dashmap::Entry::Vacant(place) => {
                let Some(room) = self.load(id, key)? else {
                    return Ok(None);
                };
                place.insert(room.clone());
                Ok(Some(room))
            }
        }
    }

    /// The room with an id; an error that says so where there is none.
    pub fn require(self: &Arc<Self>, id: &RoomId) -> Result<Room, Error> {
        self.get(id)?
            .ok_or_else(|| Error::NotFound(format!("room {id} is not known here")))
    }

    /// The number of the room with an id, without loading it.
    pub fn key_of(&self, id: &RoomId) -> Result<Option<EntityKey>, Error> {
        if let Some(room) = self.loaded.get(id) {
            return Ok(Some(room.value().key()));
        }
        Ok(hearth_storage::entity(
            self.reader(),
            EntityKind::Room,
            id.as_str(),
        )?)
    }

    /// The room with a number, as feeds name it; none where it is gone.
    pub fn room_of_key(self: &Arc<Self>, key: EntityKey) -> Result<Option<Room>, Error> {
        let id = self.ids.get(&key).map(|id| id.clone());
        // A room that was purged and joined anew has another number.
        let loaded = id.and_then(|id| self.loaded.get(&id).map(|room| room.clone()));
        if let Some(room) = loaded.filter(|room| room.key() == key) {
            return Ok(Some(room));
        }
        let row = keys::room(key, keys::ROOM_RECORD);
        let Some(value) = self.reader().get(Family::Room, &row)? else {
            return Ok(None);
        };
        let record: load::RoomRecord = hearth_storage::record::decode(&value)?;
        let id = <&RoomId>::try_from(record.room_id.as_str()).map_err(|_| Error::Damaged("room record"))?;
        let room = self.get(id)?;
        if room.is_some() {
            if self.ids.len() > self.loaded_max {
                self.ids.clear();
            }
            self.ids.insert(key, id.to_owned());
        }
        Ok(room)
    }

    /// The first room after another in the order of their numbers; the first of all after none. For consumers that look
    /// at every room once.
    pub fn key_after(&self, after: Option<EntityKey>) -> Result<Option<EntityKey>, Error> {
        let start = after.map_or_else(Vec::new, |key| keys::entity_range(key).1);
        let mut found = None;
        self.reader()
            .scan(Family::Room, &start, &[0xFF; 8], false, &mut |key, _| {
                found = key.first_chunk().copied().and_then(EntityKey::from_bytes);
                false
            })?;
        Ok(found)
    }

    /// Drops rooms that nobody holds and that have nothing under way.
    fn drop_unused(&self) {
        self.loaded.retain(|_, room| {
            let settled = || {
                let head = room.0.head.lock();
                head.record.position <= self.log.published(room.0.shard)
            };
            let typing = || !room.0.typing.lock().is_empty();
            Arc::strong_count(&room.0) > 1 || !settled() || typing()
        });
        let above = self.loaded.len() + self.loaded_max / 4;
        self.sweep_above
            .store(above.max(self.loaded_max), Ordering::Relaxed);
    }

    pub(crate) fn reader(&self) -> &dyn Reader {
        &**self.log.engine()
    }

    pub(crate) fn node_store(&self, key: EntityKey) -> state_tree::CachedStore<'_> {
        state_tree::CachedStore::new(self.reader(), &self.nodes, key)
    }

    /// An event, if it is in memory.
    pub(crate) fn remembered_event(&self, key: EntityKey, short: Short) -> Option<Arc<Event>> {
        self.events.peek(&(key, short))
    }

    pub(crate) fn cached_event(&self, room: &Room, short: Short) -> Result<Option<Arc<Event>>, Error> {
        let key = room.0.key;
        if let Some(event) = self.events.get(&(key, short)) {
            return Ok(Some(event));
        }
        let Some(bytes) = self.reader().get(Family::RoomEvent, &keys::event(key, short))? else {
            return Ok(None);
        };
        self.keep_event(room, short, &bytes).map(Some)
    }

    pub(crate) fn cached_events(&self, room: &Room, shorts: &[Short]) -> Result<Vec<Arc<Event>>, Error> {
        let key = room.0.key;
        let mut out: Vec<_> = shorts
            .iter()
            .map(|short| self.events.get(&(key, *short)))
            .collect();
        let missing: Vec<usize> = (0..out.len()).filter(|at| out[*at].is_none()).collect();
        if !missing.is_empty() {
            let rows: Vec<_> = missing.iter().map(|at| keys::event(key, shorts[*at])).collect();
            let values = self.reader().multi_get(Family::RoomEvent, &rows)?;
            for (at, value) in missing.into_iter().zip(values) {
                if let Some(bytes) = value {
                    out[at] = Some(self.keep_event(room, shorts[at], &bytes)?);
                }
            }
        }
        Ok(out.into_iter().flatten().collect())
    }

    /// Caches a decoded event unless the cache has it: a reader that read before a redaction must
    /// not put the old bytes over the new ones.
    fn keep_event(&self, room: &Room, short: Short, bytes: &[u8]) -> Result<Arc<Event>, Error> {
        let key = room.0.key;
        let event = Arc::new(Event::decode(room.rules(), short, bytes)?);
        match self
            .events
            .get_value_or_guard(&(key, short), Some(std::time::Duration::ZERO))
        {
            quick_cache::sync::GuardResult::Value(found) => return Ok(found),
            quick_cache::sync::GuardResult::Guard(guard) => drop(guard.insert(event.clone())),
            quick_cache::sync::GuardResult::Timeout => {}
        }
        Ok(event)
    }

    /// Called by the log's writer when a batch is durable and before its position is published:
    /// who reads at a published position finds the view that belongs to it.
    fn move_view(&self, note: &input::RoomNote, position: Position) {
        for event in note.replaced.iter().chain(&note.added) {
            self.events.insert((note.room.0.key, event.short), event.clone());
        }
        // The tail first: whoever reads by the new view finds its rows there.
        note.room.0.tail.push(&note.rows);
        note.room.0.members.changed(&note.members);
        for event in note
            .replaced
            .iter()
            .filter(|event| event.header.place.offset != 0)
        {
            note.room.0.tail.filled_before(event.header.place.anchor);
        }
        if let Some(view) = &note.view {
            let before = std::mem::replace(&mut *note.room.0.view.write(), view.clone());
            if before.flat != view.flat {
                // Who read by the view before it, after what was kept of members was dropped, may have kept that again.
                note.room.0.members.changed(&note.members);
            }
        }
        if note.completes {
            *note.room.0.servers_until_full.lock() = note.room.partial_servers();
            note.room.0.full_since.store(position, Ordering::Release);
            note.room.set_partial(None);
        }
        if note.change.receipts || note.change.devices {
            note.room.0.receipts_position.store(position, Ordering::Release);
        }
    }

    pub(crate) fn notify(&self, room: &Room, change: &Change, position: Position, added: &[Arc<Event>]) {
        let changed = Changed {
            room,
            change,
            position,
            added,
        };
        if change.timeline {
            self.directory.changed(room);
        }
        for listener in self.listeners.read().iter() {
            listener(&changed);
        }
    }
}

fn note_of(published: &Published) -> Option<&input::RoomNote> {
    published.note.as_ref()?.downcast_ref()
}
