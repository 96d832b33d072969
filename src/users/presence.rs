//! Presence of the local users, and what other servers say of theirs: in the memory of this process, with a counter of
//! its own.
//!
//! A device is live while it syncs and for half a minute after. The state of a user is the most present one of the
//! live devices; without activity for five minutes online becomes unavailable. Only the status message is stored.
//!
//! Lock order: the state, then nothing; callbacks run with no lock.

use std::sync::{Arc, Weak};
use std::time::Duration;

use hearth_core::tasks::{Rhythm, repeat};
use hearth_core::{SharedClock, SharedRandom, Shutdown, limits};
use hearth_storage::{Family, record};
use parking_lot::{Mutex, RwLock};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::error::{Error, Result};
use crate::keys::{self, field};
use crate::presence_state::{DevicePresence, REMOTE_MS, RemotePresence, State, UserPresence};
pub use crate::presence_state::{PresenceChanges, PresenceCounter, PresenceInfo, PresenceState};
use crate::user::{User, Users};

/// How often the timers are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Activity is noted once in so long.
const ACTIVITY_GRAIN_MS: u64 = 1000;

type Callback = Box<dyn Fn(&UserId, PresenceCounter) + Send + Sync>;

/// The owner of all users' presence.
pub struct Presence {
    clock: SharedClock,
    /// Off, everybody is offline.
    is_kept: bool,
    start: u64,
    state: Mutex<State>,
    callbacks: RwLock<Vec<Callback>>,
    after_callbacks: RwLock<Vec<Callback>>,
    users: RwLock<Weak<Users>>,
}

/// What another server says of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteStatus {
    /// The state.
    pub state: PresenceState,
    /// What the user says about it.
    pub status_msg: Option<String>,
    /// How long ago the user last did something.
    pub last_active_ago_ms: Option<u64>,
    /// Whether the user is active now.
    pub currently_active: bool,
}

/// A sync under way: its device stays live until this is dropped, and half a minute more.
pub struct SyncGuard {
    presence: Arc<Presence>,
    user: OwnedUserId,
    device: OwnedDeviceId,
}

impl Drop for SyncGuard {
    fn drop(&mut self) {
        let now = self.presence.clock.now_ms();
        self.presence.change(&self.user, |user| {
            if let Some(device) = user.devices.get_mut(&self.device) {
                device.syncing = device.syncing.saturating_sub(1);
                device.seen = now;
            }
        });
    }
}

impl Presence {
    pub(crate) fn new(clock: SharedClock, random: SharedRandom, is_kept: bool) -> Self {
        // 53 bits, so that the number survives any JSON on its way.
        let start = (hearth_core::random::u64(random.as_ref()) >> 11).max(1);
        Self {
            clock,
            is_kept,
            start,
            state: Mutex::default(),
            callbacks: RwLock::default(),
            after_callbacks: RwLock::default(),
            users: RwLock::default(),
        }
    }

    pub(crate) fn set_loader(&self, users: &Arc<Users>) {
        *self.users.write() = Arc::downgrade(users);
    }

    pub(crate) fn start(self: &Arc<Self>, shutdown: &Shutdown) {
        let rhythm = Rhythm::every(TICK);
        repeat(
            "presence timers",
            rhythm,
            shutdown,
            self,
            |presence: Arc<Self>| async move {
                presence.tick();
            },
        );
    }

    /// Adds a function that is called after each change that others can see, before the counter includes it.
    pub fn on_change(&self, callback: Callback) {
        self.callbacks.write().push(callback);
    }

    /// Adds a function that is called when the counter includes a change: for waking who waits for it.
    pub fn after_change(&self, callback: Callback) {
        self.after_callbacks.write().push(callback);
    }

    /// The counter now: every change up to it was told to those who listen.
    pub fn counter(&self) -> PresenceCounter {
        PresenceCounter {
            start: self.start,
            value: self.state.lock().told(),
        }
    }

    /// The counter of the last change, which those who listen may be being told of.
    pub fn last_change(&self) -> PresenceCounter {
        PresenceCounter {
            start: self.start,
            value: self.state.lock().counter,
        }
    }

    /// Whose presence changed after a counter, in the order of the changes.
    pub fn changed_since(&self, since: PresenceCounter) -> PresenceChanges {
        let state = self.state.lock();
        if since.start != self.start || since.value < state.floor || since.value > state.counter {
            return PresenceChanges::All;
        }
        PresenceChanges::Users(
            state
                .by_change
                .range(since.value + 1..)
                .map(|(_, user)| user.clone())
                .collect(),
        )
    }

    /// A user's presence now.
    pub fn get(&self, user: &UserId) -> PresenceInfo {
        let now = self.clock.now_ms();
        self.load(user);
        let state = self.state.lock();
        let Some(presence) = state.users.get(user) else {
            return PresenceInfo {
                state: PresenceState::Offline,
                status_msg: None,
                last_active_ago_ms: None,
                currently_active: false,
            };
        };
        let (shown, currently_active) = presence.shown(now);
        PresenceInfo {
            state: shown,
            status_msg: presence.status_msg.clone(),
            last_active_ago_ms: presence.last_active.map(|at| now.saturating_sub(at)),
            currently_active,
        }
    }

    /// The users who are not offline.
    pub fn present(&self) -> Vec<OwnedUserId> {
        let now = self.clock.now_ms();
        let state = self.state.lock();
        let present = state
            .users
            .iter()
            .filter(|(_, user)| user.shown(now).0 != PresenceState::Offline);
        present.map(|(id, _)| id.clone()).collect()
    }

    /// A sync begins. `set_presence` of offline leaves the presence alone.
    pub fn sync(
        self: &Arc<Self>,
        user: &UserId,
        device: &DeviceId,
        set_presence: PresenceState,
    ) -> Option<SyncGuard> {
        if set_presence == PresenceState::Offline || !self.is_kept {
            return None;
        }
        let now = self.clock.now_ms();
        self.load(user);
        self.change(user, |presence| {
            let was_live = presence
                .devices
                .get(device)
                .is_some_and(|device| device.is_live(now));
            let entry = presence
                .devices
                .entry(device.to_owned())
                .or_insert(DevicePresence {
                    state: set_presence,
                    syncing: 0,
                    seen: now,
                });
            let before = entry.state;
            // Busy was chosen by the user; that the client goes on syncing does not end it.
            if !(was_live && before == PresenceState::Busy) {
                entry.state = set_presence;
            }
            entry.syncing += 1;
            entry.seen = now;
            let comes_back = !was_live || before != PresenceState::Online;
            if entry.state == PresenceState::Online && comes_back {
                presence.last_active = Some(now);
            }
        });
        Some(SyncGuard {
            presence: self.clone(),
            user: user.to_owned(),
            device: device.to_owned(),
        })
    }

    /// The user did something: sent a message, typed, read.
    pub fn active(&self, user: &UserId, device: &DeviceId) {
        let now = self.clock.now_ms();
        if !self.is_kept || self.is_noted_as_active(user, device, now) {
            return;
        }
        self.load(user);
        self.change(user, |presence| {
            presence.last_active = Some(now);
            if let Some(device) = presence.devices.get_mut(device)
                && device.state == PresenceState::Unavailable
            {
                device.state = PresenceState::Online;
            }
        });
    }

    /// Whether it was noted a moment ago that the user is active: every message comes by here.
    fn is_noted_as_active(&self, user: &UserId, device: &DeviceId, now: u64) -> bool {
        let state = self.state.lock();
        state.users.get(user).is_some_and(|presence| {
            let at = presence
                .last_active
                .filter(|at| now.saturating_sub(*at) < ACTIVITY_GRAIN_MS);
            let idle = |device: &DevicePresence| device.state == PresenceState::Unavailable;
            at.is_some() && !presence.devices.get(device).is_some_and(idle)
        })
    }

    /// Sets the state of a device, and the status message if `status_msg` is given; see [`User::set_presence`] for
    /// the durable way.
    fn set(
        &self,
        user: &UserId,
        device: &DeviceId,
        set_to: PresenceState,
        status_msg: Option<Option<String>>,
    ) {
        let now = self.clock.now_ms();
        self.load(user);
        let mut says_more = false;
        self.change_with(user, |presence| {
            let syncing = presence.devices.get(device).map_or(0, |device| device.syncing);
            presence.devices.insert(
                device.to_owned(),
                DevicePresence {
                    state: set_to,
                    syncing,
                    seen: now,
                },
            );
            if matches!(set_to, PresenceState::Online | PresenceState::Busy) || presence.last_active.is_none()
            {
                presence.last_active = Some(now);
            }
            if let Some(status_msg) = status_msg {
                says_more = presence.status_msg != status_msg;
                presence.status_msg = status_msg;
            }
            says_more
        });
    }

    /// Notes what another server says of its user. The caller has checked that the server may.
    pub fn set_remote(&self, user: &UserId, said: RemoteStatus) {
        let now = self.clock.now_ms();
        let RemoteStatus {
            state,
            status_msg,
            last_active_ago_ms,
            currently_active,
        } = said;
        self.change_with(user, |presence| {
            let says_more = presence.status_msg != status_msg;
            presence.status_msg = status_msg;
            presence.last_active = last_active_ago_ms.map(|ago| now.saturating_sub(ago));
            presence.remote = Some(RemotePresence {
                state,
                currently_active,
                until: now + REMOTE_MS,
            });
            says_more
        });
    }

    /// Lets go of a user whose account ended.
    pub(crate) fn forget(&self, user: &UserId) {
        self.change_with(user, |presence| {
            *presence = UserPresence {
                changed_at: presence.changed_at,
                deadline: presence.deadline,
                told: presence.told,
                ..UserPresence::default()
            };
            false
        });
    }

    /// Applies the timers that have run out.
    pub fn tick(&self) {
        let now = self.clock.now_ms();
        let due: Vec<OwnedUserId> = {
            let state = self.state.lock();
            state
                .deadlines
                .iter()
                .take_while(|(at, _)| *at <= now)
                .map(|(_, user)| user.clone())
                .collect()
        };
        for user in due {
            self.change(&user, |_| {});
        }
    }

    /// Reads the stored status message of a user who is not in memory.
    fn load(&self, user: &UserId) {
        if self.state.lock().users.contains_key(user) {
            return;
        }
        let users = self.users.read().upgrade();
        let status_msg = match users.map(|users| users.stored_status(user)) {
            Some(Ok(status_msg)) => status_msg,
            Some(Err(error)) => {
                tracing::warn!(%error, "a stored status message could not be read");
                None
            }
            None => None,
        };
        if let Some(status_msg) = status_msg {
            let mut state = self.state.lock();
            state.users.entry(user.to_owned()).or_default().status_msg = Some(status_msg);
        }
    }

    fn change(&self, user: &UserId, change: impl FnOnce(&mut UserPresence)) {
        self.change_with(user, |presence| {
            change(presence);
            false
        });
    }

    /// Changes a user's presence, sets the next timer, and tells of it if others can see a difference or `change`
    /// says so.
    fn change_with(&self, user: &UserId, change: impl FnOnce(&mut UserPresence) -> bool) {
        if !self.is_kept {
            return;
        }
        let value = self.state.lock().change(user, self.clock.now_ms(), change);
        let Some(value) = value else { return };
        let telling = Telling {
            presence: self,
            value,
        };
        let counter = PresenceCounter {
            start: self.start,
            value,
        };
        for callback in self.callbacks.read().iter() {
            callback(user, counter);
        }
        drop(telling);
        for callback in self.after_callbacks.read().iter() {
            callback(user, counter);
        }
    }
}

/// A change that those who listen are being told of.
struct Telling<'a> {
    presence: &'a Presence,
    value: u64,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.presence.state.lock().telling.remove(&self.value);
    }
}

impl Users {
    fn stored_status(&self, user: &UserId) -> Result<Option<String>> {
        let Some(known) = self.known(user)? else {
            return Ok(None);
        };
        let value = self
            .log
            .engine()
            .get(Family::User, &keys::user(known.key, field::PRESENCE, ""))?;
        Ok(value.as_deref().map(record::decode).transpose()?)
    }
}

impl User {
    /// Sets the presence of a device. A status message is stored first; `None` leaves it, `Some(None)` takes it away.
    pub async fn set_presence(
        &self,
        device: &DeviceId,
        state: PresenceState,
        status_msg: Option<Option<String>>,
    ) -> Result<()> {
        if let Some(status_msg) = &status_msg {
            if status_msg
                .as_ref()
                .is_some_and(|text| text.len() > limits::STATUS_MESSAGE_MAX_BYTES)
            {
                return Err(Error::TooLarge("The status message is longer than 1 KiB"));
            }
            self.store_status(status_msg.as_deref()).await?;
        }
        self.users.presence().set(&self.id, device, state, status_msg);
        Ok(())
    }

    async fn store_status(&self, status_msg: Option<&str>) -> Result<()> {
        let row = keys::user(self.key, field::PRESENCE, "");
        self.write(|tx| {
            let new = status_msg.map(record::encode);
            if tx.get(Family::User, &row)? == new {
                return Ok(());
            }
            match new {
                Some(value) => tx.put(Family::User, row, value),
                None => tx.delete(Family::User, row),
            }
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;
