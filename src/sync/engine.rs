//! The sync engine: what may this user see since this token?
//!
//! The order of reading is the whole point (design, section 9): register for wake-ups; take the
//! published positions of all shards; then read the user's own shard; then read the rooms up to the
//! positions taken. What is beyond them waits for the next sync.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use hearth_core::{Shutdown, clock::SharedClock, limits, metrics as names, random::SharedRandom, tasks};
use hearth_rooms::{PushRules, Room, Rooms, Unread, Viewer};
use hearth_storage::{Position, ShardId};
use hearth_users::{Change, InviteVerdict, Membership, PresenceState, RoomEntry, User, Users};
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, UserId};

use crate::{
    Error, Filter, SyncToken, SyncView,
    index::JoinedEntry,
    notifier::{IndexGuard, Notifier},
    peek::Peeks,
    positions::RoomsRead,
    view::{DataEvent, DeviceLists, StrippedRoom},
};

/// How often idle indexes are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// What a client asks of `/sync`.
#[derive(Clone)]
pub struct SyncRequest {
    /// Who asks.
    pub user: User,
    /// With which device; application services may have none.
    pub device: Option<OwnedDeviceId>,
    /// What is wanted.
    pub filter: Arc<Filter>,
    /// What the client has seen.
    pub since: Option<SyncToken>,
    /// Whether all state is wanted again.
    pub full_state: bool,
    /// To which side of the timeline the state is to go.
    pub state: StateSide,
    /// How long to wait for news.
    pub timeout: Duration,
    /// The presence that syncing gives the user.
    pub set_presence: PresenceState,
}

impl SyncRequest {
    /// Whether the state goes to the end of the timeline.
    pub(crate) fn is_state_after(&self) -> bool {
        self.state != StateSide::Before
    }
}

/// To which side of the timeline the state in an answer goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateSide {
    /// Up to its start.
    #[default]
    Before,
    /// Up to its end (`use_state_after`).
    After,
    /// Up to its end, for clients that use the names of MSC4222.
    AfterUnstable,
}

/// The engine.
pub struct SyncEngine {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) users: Arc<Users>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) random: SharedRandom,
    pub(crate) connections: crate::sliding::Connections,
    pub(crate) peeks: Arc<Peeks>,
    /// Until a shutdown, syncs wait; then they are answered at once.
    pub(crate) shutdown: Shutdown,
}

/// One look at the user's news.
pub(crate) struct Look<'a> {
    pub(crate) engine: &'a SyncEngine,
    pub(crate) request: &'a SyncRequest,
    pub(crate) since: Option<&'a SyncToken>,
    pub(crate) index: &'a IndexGuard,
    /// The positions up to which rooms are read.
    pub(crate) positions: Vec<(ShardId, Position)>,
    /// The position up to which the user's own shard is read.
    pub(crate) user_position: Position,
    pub(crate) ignored: Arc<BTreeSet<OwnedUserId>>,
    /// The user's push rules, once a room asked for them.
    pub(crate) rules: OnceCell<Arc<PushRules>>,
}

/// The user's own changes since the token.
#[derive(Default)]
struct OwnNews {
    entries: Vec<RoomEntry>,
    global: Vec<DataEvent>,
    of_rooms: BTreeMap<OwnedRoomId, Vec<DataEvent>>,
    /// Whether the user's own devices or keys changed.
    devices: bool,
}

impl OwnNews {
    /// The rooms that the user has left after a position.
    fn gone(&self, since: Position) -> Vec<OwnedRoomId> {
        let is_gone = |entry: &&RoomEntry| {
            let out = matches!(entry.membership, Membership::Leave | Membership::Ban);
            out && entry.was_joined && entry.began > since
        };
        self.entries
            .iter()
            .filter(is_gone)
            .map(|entry| entry.room_id.clone())
            .collect()
    }
}

/// Counts a sync that waits for as long as it lives.
pub(crate) struct Waiting;

impl Waiting {
    pub(crate) fn begin() -> Self {
        metrics::gauge!(names::SYNC_CONNECTIONS).increment(1.0);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!(names::SYNC_CONNECTIONS).decrement(1.0);
    }
}

/// A sync that waited tells of rooms: how long their first news took.
pub(crate) fn delivered(news: Option<Instant>) {
    if let Some(news) = news {
        metrics::histogram!(names::MESSAGE_LATENCY).record(news.elapsed().as_secs_f64());
    }
}

impl SyncEngine {
    /// The engine over the rooms and users of a server. Listens to their changes from now on.
    pub fn new(
        rooms: Arc<Rooms>,
        users: Arc<Users>,
        clock: SharedClock,
        random: SharedRandom,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        // The numbers of indexes begin at a place of each start's own, so that a token of an earlier
        // start names none of this one's. 48 bits keep the token short.
        let start = hearth_core::random::u64(random.as_ref()) >> 16;
        let notifier = Notifier::new(rooms.clone(), users.clone(), clock, start);
        let peeks = Arc::<Peeks>::default();
        peeks.listen(&rooms);
        Arc::new(Self {
            rooms,
            users,
            notifier,
            random,
            connections: crate::sliding::Connections::default(),
            peeks,
            shutdown,
        })
    }

    /// Starts the task that drops the indexes of users who have stopped syncing, and their connections.
    pub fn start(self: &Arc<Self>) {
        let (engine, shutdown) = (Arc::downgrade(self), self.shutdown.clone());
        tasks::spawn("sync indexes", async move {
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.wait() => return,
                    () = tokio::time::sleep(SWEEP_INTERVAL) => {}
                }
                let Some(engine) = engine.upgrade() else {
                    return;
                };
                engine.notifier.drop_idle();
                engine.connections.sweep().await;
            }
        });
    }

    /// The rooms of the server.
    pub fn rooms(&self) -> &Arc<Rooms> {
        &self.rooms
    }

    /// What a user may see since a token: waits until there is something, or the time is over.
    pub async fn sync(&self, request: &SyncRequest) -> Result<SyncView, Error> {
        let presence = request.device.as_ref().and_then(|device| {
            self.users
                .presence()
                .sync(request.user.id(), device, request.set_presence)
        });
        let index = self.notifier.index(&request.user);
        if let Some(device) = &request.device {
            index
                .state
                .lock()
                .lazy
                .resume(device.as_str(), request.since.as_ref());
        }
        let timeout = request
            .timeout
            .min(Duration::from_millis(limits::SYNC_MAX_TIMEOUT_MS));
        let deadline = tokio::time::Instant::now() + timeout;
        let mut since = request.since.clone();
        let mut waiting = None;
        let (mut view, news) = loop {
            let woken = index.notify.notified();
            tokio::pin!(woken);
            // Registered before anything is looked at, so that no wake-up is lost.
            woken.as_mut().enable();
            let news = index.state.lock().first_news.take();
            let view = self.look(request, since.as_ref(), &index).await?;
            let answers_at_once = since.is_none() || request.full_state || self.shutdown.is_triggered();
            if !view.is_empty() || answers_at_once || tokio::time::Instant::now() >= deadline {
                break (view, news);
            }
            // Nothing of what was looked at concerns the client: it need not be looked at again.
            since = Some(view.next);
            waiting.get_or_insert_with(Waiting::begin);
            tokio::select! {
                biased;
                () = &mut woken => {}
                () = self.shutdown.wait() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        };
        view.next_batch = self
            .token_text(&index, request.device.as_deref(), &view.next)
            .await;
        self.remember(request, &index, &view);
        if waiting.is_some() && !view.joined.is_empty() {
            delivered(news);
        }
        drop(presence);
        Ok(view)
    }

    /// Notes what an answer tells of.
    fn remember(&self, request: &SyncRequest, index: &IndexGuard, view: &SyncView) {
        let Some(device) = &request.device else { return };
        let anew: Vec<_> = view
            .joined
            .iter()
            .filter(|room| room.initial)
            .map(|room| room.room.key())
            .collect();
        index
            .state
            .lock()
            .lazy
            .sent(device.as_str(), &view.next, &anew, view.members.clone());
    }

    /// Takes the positions in their order and looks once.
    async fn look(
        &self,
        request: &SyncRequest,
        since: Option<&SyncToken>,
        index: &IndexGuard,
    ) -> Result<SyncView, Error> {
        let user = &request.user;
        let (positions, user_position) = self.positions(user, index, since, RoomsRead::Joined).await?;
        let ignored = user.ignored_users()?;
        let mut look = Look {
            engine: self,
            request,
            since,
            index,
            positions,
            user_position,
            ignored,
            rules: OnceCell::new(),
        };
        let to_device = look.take_to_device()?;
        let mut view = look.view()?;
        view.to_device = to_device;
        view.key_counts = request
            .device
            .as_ref()
            .map(|device| user.key_counts(device))
            .transpose()?;
        Ok(view)
    }

    /// The device of a request has got what its token stands for: lets go of the messages that it carried.
    pub async fn acknowledge(&self, request: &SyncRequest) {
        let (Some(device), Some(since)) = (&request.device, &request.since) else {
            return;
        };
        // The messages stay for another time where the disk is full: reading goes on.
        if let Err(error) = request.user.acknowledge_to_device(device, since.user).await {
            tracing::debug!(%error, "messages to a device that it has got could not be removed");
        }
    }

    /// Whose devices changed between two tokens (`/keys/changes`).
    pub async fn device_changes(
        &self,
        request: &SyncRequest,
        until: &SyncToken,
    ) -> Result<DeviceLists, Error> {
        let user = &request.user;
        let index = self.notifier.index(user);
        let published = self.rooms.log().published_all();
        let read = self.notifier.refresh(&index)?;
        self.rooms.log().wait_durable(user.shard(), read).await?;
        let positions = published
            .into_iter()
            .map(|(shard, position)| (shard, position.min(until.shard(shard))));
        let look = Look {
            engine: self,
            request,
            since: request.since.as_ref(),
            index: &index,
            positions: positions.collect(),
            user_position: until.user.min(user.position()),
            ignored: user.ignored_users()?,
            rules: OnceCell::new(),
        };
        let own = look.own_news()?;
        look.device_lists(own.devices, &own.gone(look.user_since()))
    }
}

impl Look<'_> {
    /// The position up to which rooms of a shard are read.
    pub(crate) fn until(&self, shard: ShardId) -> Position {
        self.positions
            .iter()
            .find(|(one, _)| *one == shard)
            .map_or(0, |(_, position)| *position)
    }

    /// What the client has seen of the user's own shard.
    fn user_since(&self) -> Position {
        self.since.map_or(0, |since| since.user)
    }

    /// Whether the client has been told that the user is joined to a room.
    pub(crate) fn knows_joined(&self, entry: &JoinedEntry) -> bool {
        self.since
            .is_some_and(|since| entry.began <= since.user && entry.room_began <= since.shard(entry.shard))
    }

    fn view(&self) -> Result<SyncView, Error> {
        let (typing_count, shards) = {
            let state = self.index.state.lock();
            (state.typing_count(), state.shards().collect::<Vec<_>>())
        };
        let presence = self.engine.users.presence().counter();
        let mut view = SyncView {
            next: SyncToken {
                shards: shards
                    .into_iter()
                    .map(|shard| (shard, self.until(shard)))
                    .collect(),
                user: self.user_position,
                ephemeral: (self.index.start, typing_count),
                presence: (presence.start, presence.value),
            },
            ..SyncView::default()
        };
        let mut own = self.own_news()?;
        view.account_data = std::mem::take(&mut own.global);
        view.device_lists = self.device_lists(own.devices, &own.gone(self.user_since()))?;
        for entry in std::mem::take(&mut own.entries) {
            self.entry_news(&entry, &mut own.of_rooms, &mut view)?;
        }
        for entry in self.candidates(&own.of_rooms) {
            let account_data = own.of_rooms.remove(&entry.room_id).unwrap_or_default();
            if let Some(room) = self.joined_room(&entry, account_data, &mut view.members)? {
                view.joined.push(room);
            }
        }
        self.presence_news(&mut view)?;
        Ok(view)
    }

    /// The joined rooms that may have news, in the order of their ids.
    fn candidates(&self, with_data: &BTreeMap<OwnedRoomId, Vec<DataEvent>>) -> Vec<JoinedEntry> {
        let filter = &self.request.filter.room;
        let state = self.index.state.lock();
        let mut found: BTreeMap<OwnedRoomId, JoinedEntry> = BTreeMap::new();
        let mut add = |entry: JoinedEntry| {
            if filter.has_room(&entry.room_id) {
                found.insert(entry.room_id.clone(), entry);
            }
        };
        match self.since.filter(|_| !self.request.full_state) {
            None => state.rooms().cloned().for_each(&mut add),
            Some(since) => {
                state
                    .changed_rooms(|shard| since.shard(shard))
                    .into_iter()
                    .for_each(&mut add);
                state
                    .changed_typing(self.typing_since())
                    .into_iter()
                    .for_each(&mut add);
                with_data
                    .keys()
                    .filter_map(|id| state.room(id))
                    .cloned()
                    .for_each(&mut add);
                state.begun_after(since.user).into_iter().for_each(&mut add);
            }
        }
        found.into_values().collect()
    }

    /// The count of typing that the client has seen; 0 where it saw another index.
    pub(crate) fn typing_since(&self) -> u64 {
        self.since
            .map(|since| since.ephemeral)
            .filter(|(start, _)| *start == self.index.start)
            .map_or(0, |(_, count)| count)
    }

    /// What changed in the user's own shard.
    fn own_news(&self) -> Result<OwnNews, Error> {
        match self.since {
            None => self.own_everything(),
            Some(since) if since.user >= self.user_position && !self.request.full_state => {
                Ok(OwnNews::default())
            }
            Some(since) => self.own_changes(since.user),
        }
    }

    fn own_everything(&self) -> Result<OwnNews, Error> {
        let mut own = OwnNews {
            entries: self.all_entries()?,
            of_rooms: crate::account_data::all_of_rooms(&self.request.user)?,
            ..OwnNews::default()
        };
        let filter = &self.request.filter.account_data;
        let data = crate::account_data::all_global(&self.request.user)?;
        own.global = data
            .into_iter()
            .filter(|event| filter.has_type(&event.kind))
            .collect();
        Ok(own)
    }

    /// The rooms that the user is not joined to, as far as a client is told of them afresh.
    fn all_entries(&self) -> Result<Vec<RoomEntry>, Error> {
        let all_left = self.request.filter.room.include_leave;
        let user = &self.request.user;
        let mut entries = user.rooms(&[
            Membership::Invite,
            Membership::Knock,
            Membership::Leave,
            Membership::Ban,
        ])?;
        // A user who was put out by somebody else learns of it also where the client starts afresh.
        entries.retain(|entry| match entry.membership {
            Membership::Leave => all_left || (entry.was_joined && entry.sender != *user.id()),
            _ => true,
        });
        Ok(entries)
    }

    /// What changed of the user after a position, up to where the look goes.
    pub(crate) fn changes_after(&self, since: Position) -> Result<Vec<(Position, Change)>, Error> {
        if !self.index.state.lock().own.may_be_after(since) {
            return Ok(Vec::new());
        }
        let user = self.request.user.now();
        Ok(user.changes_between(since, self.user_position)?)
    }

    fn own_changes(&self, since: Position) -> Result<OwnNews, Error> {
        let user = self.request.user.now();
        let mut own = OwnNews::default();
        for (_, change) in self.changes_after(since)? {
            match change {
                Change::Room(room_id) => own.entries.extend(user.room(&room_id)?),
                Change::AccountData { room, kind } => {
                    let Some(data) = user.account_data(room.as_deref(), &kind)? else {
                        continue;
                    };
                    match room {
                        None => {
                            if self.request.filter.account_data.has_type(&kind) {
                                own.global
                                    .push(crate::account_data::event(&self.request.user, data)?);
                            }
                        }
                        Some(room) => {
                            let event = crate::account_data::event(&self.request.user, data)?;
                            own.of_rooms.entry(room).or_default().push(event);
                        }
                    }
                }
                Change::DeviceList => own.devices = true,
                Change::Devices
                | Change::Profile
                | Change::Account
                | Change::ToDevice
                | Change::Thread { .. } => {}
            }
        }
        if self.request.full_state {
            let told: BTreeSet<OwnedRoomId> = own.entries.iter().map(|entry| entry.room_id.clone()).collect();
            own.entries.extend(
                self.all_entries()?
                    .into_iter()
                    .filter(|entry| !told.contains(&entry.room_id)),
            );
        }
        Ok(own)
    }

    /// What an entry of the room list that changed tells, where the user is not joined.
    fn entry_news(
        &self,
        entry: &RoomEntry,
        data: &mut BTreeMap<OwnedRoomId, Vec<DataEvent>>,
        view: &mut SyncView,
    ) -> Result<(), Error> {
        if !self.request.filter.room.has_room(&entry.room_id) {
            return Ok(());
        }
        match entry.membership {
            Membership::Join => {}
            Membership::Invite if self.is_unwanted(&entry.sender)? => {}
            Membership::Invite => view.invited.push(self.stripped(entry)?),
            Membership::Knock => view.knocked.push(self.stripped(entry)?),
            Membership::Leave | Membership::Ban => {
                let again = self.request.full_state && self.request.filter.room.include_leave;
                if self.since.is_some() && entry.began <= self.user_since() && !again {
                    return Ok(());
                }
                let account_data = data.remove(&entry.room_id).unwrap_or_default();
                match self.left_room(entry, account_data)? {
                    Some(room) => view.left.push(room),
                    None => view.left_outside.push(self.left_outside(entry)),
                }
            }
        }
        Ok(())
    }

    /// Whether the user wants no invitations of this sender.
    pub(crate) fn is_unwanted(&self, sender: &UserId) -> Result<bool, Error> {
        let verdict = self.request.user.invite_verdict(sender)?;
        Ok(self.ignored.contains(sender) || verdict != InviteVerdict::Take)
    }

    pub(crate) fn left_outside(&self, entry: &RoomEntry) -> crate::view::LeftOutside {
        let membership = match entry.membership {
            Membership::Ban => "ban",
            _ => "leave",
        };
        crate::view::LeftOutside {
            room_id: entry.room_id.clone(),
            event: serde_json::json!({
                "type": "m.room.member",
                "state_key": self.request.user.id(),
                "sender": entry.sender,
                "content": { "membership": membership },
                "event_id": entry.event_id,
                "origin_server_ts": entry.ts,
            }),
        }
    }

    /// A room as the invited or knocking user sees it: as the entry has it, where another server's room
    /// gave it, else as the room here is.
    pub(crate) fn stripped(&self, entry: &RoomEntry) -> Result<StrippedRoom, Error> {
        let mut state = entry.stripped_state.clone();
        if state.is_empty()
            && let Some(room) = self.engine.rooms.get(&entry.room_id)?
        {
            state = room.stripped_state(self.request.user.id())?;
        }
        Ok(StrippedRoom {
            room_id: entry.room_id.clone(),
            state,
        })
    }

    /// What is unread in a room that the user is joined to: since an event, where that was noted, and a position.
    pub(crate) fn unread(&self, room: &Room, began: (u64, Position)) -> Result<Unread, Error> {
        let user = &self.request.user;
        let rules = match self.rules.get() {
            Some(rules) => rules,
            None => {
                let read = user.rules()?;
                self.rules.get_or_init(|| read)
            }
        };
        Ok(room.unread_since(user, began, rules, &self.ignored)?)
    }

    /// Whether an event is one that the user does not want to see: state events of ignored users
    /// still count.
    pub(crate) fn is_ignored(&self, event: &hearth_rooms::Event) -> bool {
        event.pdu.state_key().is_none() && self.ignored.contains(event.pdu.sender())
    }

    pub(crate) fn viewer(&self, room: &hearth_rooms::Room) -> Result<Viewer, Error> {
        Ok(room
            .viewer(self.request.user.id())?
            .ignoring(self.ignored.clone()))
    }
}
