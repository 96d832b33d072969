//! What presence is made of: devices, users, timers. No clock and no lock: the time is given.

use std::collections::{BTreeMap, BTreeSet};

use hearth_core::limits;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};

/// How present a user is, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PresenceState {
    /// Not connected, or hiding.
    Offline,
    /// Idle.
    Unavailable,
    /// Connected.
    Online,
    /// Connected, and asks not to be disturbed.
    Busy,
}

impl PresenceState {
    /// The name in the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
            Self::Online => "online",
            Self::Busy => "busy",
        }
    }

    /// The state of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "offline" => Some(Self::Offline),
            "unavailable" => Some(Self::Unavailable),
            "online" => Some(Self::Online),
            "busy" | "org.matrix.msc3026.busy" => Some(Self::Busy),
            _ => None,
        }
    }
}

/// A user's presence as others see it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceInfo {
    /// The state.
    pub state: PresenceState,
    /// What the user says about it.
    pub status_msg: Option<String>,
    /// How long ago the user last did something.
    pub last_active_ago_ms: Option<u64>,
    /// Whether that was so short ago that its exact time does not matter.
    pub currently_active: bool,
}

/// How far a reader has seen changes of presence. Counters of different starts cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PresenceCounter {
    /// The number of this process's start.
    pub start: u64,
    /// How many changes there were.
    pub value: u64,
}

/// Whose presence changed after a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceChanges {
    /// These users'.
    Users(Vec<OwnedUserId>),
    /// The counter is of another start, or too old: everything must be sent again.
    All,
}

/// How long after an activity a user counts as currently active.
pub(crate) const CURRENTLY_ACTIVE_MS: u64 = 60 * 1000;
pub(crate) const IDLE_MS: u64 = limits::PRESENCE_IDLE.as_millis() as u64;
pub(crate) const OFFLINE_MS: u64 = limits::PRESENCE_OFFLINE.as_millis() as u64;

/// Users kept in memory. Beyond it those who have been offline longest are dropped, and their status read again.
const USERS_MAX: usize = 200_000;

pub(crate) struct DevicePresence {
    pub(crate) state: PresenceState,
    pub(crate) syncing: u32,
    /// When the last sync ended, or the state was set.
    pub(crate) seen: u64,
}

#[derive(Default)]
pub(crate) struct UserPresence {
    pub(crate) devices: BTreeMap<OwnedDeviceId, DevicePresence>,
    pub(crate) status_msg: Option<String>,
    pub(crate) last_active: Option<u64>,
    /// What was last told: state and whether currently active.
    pub(crate) told: Option<(PresenceState, bool)>,
    pub(crate) changed_at: u64,
    pub(crate) deadline: Option<u64>,
    /// What another server said of its user, and until when that holds.
    pub(crate) remote: Option<RemotePresence>,
}

/// The presence of a user of another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RemotePresence {
    pub(crate) state: PresenceState,
    pub(crate) currently_active: bool,
    pub(crate) until: u64,
}

/// What another server said of a user holds so long: it says it again before, or is away.
pub(crate) const REMOTE_MS: u64 = 30 * 60 * 1000;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) users: BTreeMap<OwnedUserId, UserPresence>,
    pub(crate) by_change: BTreeMap<u64, OwnedUserId>,
    pub(crate) deadlines: BTreeSet<(u64, OwnedUserId)>,
    pub(crate) counter: u64,
    /// Changes that those who listen are being told of.
    pub(crate) telling: BTreeSet<u64>,
    /// Changes up to this counter may have been dropped.
    pub(crate) floor: u64,
}

impl State {
    /// Changes a user's presence; gives the counter if there is something to tell.
    pub(crate) fn change(
        &mut self,
        user: &UserId,
        now: u64,
        change: impl FnOnce(&mut UserPresence) -> bool,
    ) -> Option<u64> {
        let state = self;
        let presence = state.users.entry(user.to_owned()).or_default();
        let must_tell = change(presence);
        presence.devices.retain(|_, device| device.is_live(now));
        let shown = presence.shown(now);
        let deadline = presence.next_deadline(now);
        if deadline != presence.deadline {
            if let Some(old) = presence.deadline {
                state.deadlines.remove(&(old, user.to_owned()));
            }
            if let Some(new) = deadline {
                state.deadlines.insert((new, user.to_owned()));
            }
            presence.deadline = deadline;
        }
        let told = presence.told.unwrap_or((PresenceState::Offline, false));
        if shown == told && !must_tell {
            // Who was never told of stands in no order by which he could be dropped later.
            let idle = presence.changed_at == 0 && deadline.is_none();
            if idle && state.users.len() > USERS_MAX {
                state.users.remove(user);
            }
            return None;
        }
        presence.told = Some(shown);
        state.counter += 1;
        state.telling.insert(state.counter);
        state.by_change.remove(&presence.changed_at);
        state.by_change.insert(state.counter, user.to_owned());
        presence.changed_at = state.counter;
        state.shed(now);
        Some(state.counter)
    }

    /// The last counter up to which everything was told.
    pub(crate) fn told(&self) -> u64 {
        self.telling.first().map_or(self.counter, |first| first - 1)
    }

    /// Drops users who have been offline longest where there are too many.
    fn shed(&mut self, now: u64) {
        while self.users.len() > USERS_MAX {
            let is_offline = |user: &UserPresence| user.shown(now).0 == PresenceState::Offline;
            let offline = |id: &OwnedUserId| self.users.get(id).is_none_or(is_offline);
            let Some((counter, id)) = self
                .by_change
                .iter()
                .find(|(_, id)| offline(id))
                .map(|(counter, id)| (*counter, id.clone()))
            else {
                return;
            };
            self.by_change.remove(&counter);
            if let Some(at) = self.users.remove(&id).and_then(|user| user.deadline) {
                self.deadlines.remove(&(at, id));
            }
            self.floor = counter;
        }
    }
}

impl DevicePresence {
    pub(crate) fn is_live(&self, now: u64) -> bool {
        self.syncing > 0 || now < self.seen + OFFLINE_MS
    }
}

impl UserPresence {
    /// The state that others see, and whether the user is currently active.
    pub(crate) fn shown(&self, now: u64) -> (PresenceState, bool) {
        if let Some(remote) = self.remote {
            return match now < remote.until {
                true => (remote.state, remote.currently_active),
                false => (PresenceState::Offline, false),
            };
        }
        let live = self.devices.values().filter(|device| device.is_live(now));
        let most = live
            .map(|device| device.state)
            .max()
            .unwrap_or(PresenceState::Offline);
        let idle_for = self.last_active.map_or(u64::MAX, |at| now.saturating_sub(at));
        if most == PresenceState::Online && idle_for >= IDLE_MS {
            return (PresenceState::Unavailable, false);
        }
        (
            most,
            most == PresenceState::Online && idle_for < CURRENTLY_ACTIVE_MS,
        )
    }

    /// When what others see may change by itself.
    fn next_deadline(&self, now: u64) -> Option<u64> {
        if let Some(remote) = self.remote {
            return Some(remote.until).filter(|at| *at > now);
        }
        if self.devices.is_empty() {
            return None;
        }
        let leaves = self
            .devices
            .values()
            .filter(|device| device.syncing == 0)
            .map(|device| device.seen + OFFLINE_MS);
        let idles = self
            .last_active
            .into_iter()
            .flat_map(|at| [at + CURRENTLY_ACTIVE_MS, at + IDLE_MS]);
        leaves.chain(idles).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_been_offline_longest_is_dropped() {
        let mut state = State::default();
        let user = |number: usize| UserId::parse(format!("@u{number}:hs2")).expect("a user id");
        let says = |state: PresenceState| RemotePresence {
            state,
            currently_active: false,
            until: 1_000,
        };
        for number in 0..USERS_MAX {
            let said = match number {
                7 => PresenceState::Offline,
                _ => PresenceState::Online,
            };
            state.change(&user(number), 1, |presence| {
                presence.remote = Some(says(said));
                true
            });
        }
        state.change(&user(USERS_MAX), 1, |presence| {
            presence.remote = Some(says(PresenceState::Online));
            true
        });
        assert_eq!(state.users.len(), USERS_MAX);
        assert!(state.users.contains_key(&user(0)), "who is online stays");
        assert!(!state.users.contains_key(&user(7)));
        assert!(
            state
                .deadlines
                .iter()
                .all(|(_, due)| state.users.contains_key(due))
        );
    }

    #[test]
    fn names() {
        for state in [
            PresenceState::Offline,
            PresenceState::Unavailable,
            PresenceState::Online,
            PresenceState::Busy,
        ] {
            assert_eq!(PresenceState::parse(state.name()), Some(state));
        }
        assert_eq!(PresenceState::parse("away"), None);
    }
}
