//! The sync engine: what may this user see since this token?
//!
//! The order of reading is the whole point (design, section 9): register for wake-ups; take the
//! published positions of all shards; then read the user's own shard; then read the rooms up to the
//! positions taken. What is beyond them waits for the next sync.

use std::{
    cell::{Cell, OnceCell},
    sync::Arc,
    time::{Duration, Instant},
};

use hearth_core::{
    Shutdown,
    clock::SharedClock,
    limits, metrics as names,
    random::SharedRandom,
    tasks::{Rhythm, repeat},
};
use hearth_rooms::Rooms;
use hearth_users::{PresenceState, User, Users};
use ruma::{DeviceId, OwnedDeviceId, UserId};

use crate::{
    Error, Filter, SyncToken, SyncView,
    devices::ToDevice,
    look::Look,
    notifier::{IndexGuard, Notifier},
    peek::Peeks,
    positions::RoomsRead,
    view::DeviceLists,
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
    /// Whether messages to the device are wanted.
    pub to_device: bool,
    /// The most events that the answer may have; with more it is [`Error::Large`].
    pub events_max: usize,
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
        let (rhythm, shutdown) = (Rhythm::every(SWEEP_INTERVAL), &self.shutdown);
        repeat(
            "sync indexes",
            rhythm,
            shutdown,
            self,
            |engine: Arc<Self>| async move {
                engine.notifier.drop_idle();
                engine.connections.sweep().await;
            },
        );
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
            let is_first = since.as_ref().is_none_or(SyncToken::is_of_messages_alone);
            let answers_at_once = is_first || request.full_state || self.shutdown.is_triggered();
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
        // While the first sync is not over, nothing but messages was told.
        let seen = since.filter(|since| !since.is_of_messages_alone());
        let (positions, user_position) = self.positions(user, index, seen, RoomsRead::Joined).await?;
        let ignored = user.ignored_users()?;
        let mut look = Look {
            engine: self,
            request,
            since: seen,
            index,
            positions,
            user_position,
            messages: None,
            ignored,
            rules: OnceCell::new(),
            events: Cell::default(),
        };
        let ToDevice { events, waits_for } = look.take_to_device(since)?;
        let mut view = match waits_for {
            Some(reached) => SyncView {
                next: SyncToken::of_messages_alone(reached),
                ..SyncView::default()
            },
            None => look.view()?,
        };
        view.to_device = events;
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
        let until = since.messages_seen();
        if let Err(error) = request.user.acknowledge_to_device(device, until).await {
            tracing::debug!(%error, "messages to a device that it has got could not be removed");
        }
    }

    /// A device has sent an encrypted event: what waits for news of keys alone is answered.
    pub fn has_encrypted(&self, user: &UserId, device: &DeviceId) {
        self.notifier.has_encrypted(user, device);
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
            messages: None,
            ignored: user.ignored_users()?,
            rules: OnceCell::new(),
            events: Cell::default(),
        };
        let own = look.own_news()?;
        look.device_lists(own.devices, &own.gone(look.user_since()))
    }
}
