use std::sync::atomic::{AtomicU64, Ordering};

use hearth_core::clock::ManualClock;
use hearth_core::random::SeededRandom;
use ruma::{device_id, user_id};

use super::*;
use crate::presence_state::{CURRENTLY_ACTIVE_MS, IDLE_MS, OFFLINE_MS};

fn presence() -> (Arc<ManualClock>, Arc<Presence>) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let presence = Presence::new(clock.clone(), Arc::new(SeededRandom::new(1)), true);
    (clock, Arc::new(presence))
}

fn state(presence: &Presence, user: &UserId) -> (PresenceState, bool) {
    let info = presence.get(user);
    (info.state, info.currently_active)
}

#[test]
fn a_sync_makes_online_and_its_end_offline() {
    let (clock, presence) = presence();
    let (alice, device) = (user_id!("@alice:a"), device_id!("A"));
    let told = Arc::new(AtomicU64::new(0));
    let seen = told.clone();
    presence.on_change(Box::new(move |_, counter| {
        seen.store(counter.value, Ordering::SeqCst)
    }));
    let start = presence.counter();
    let guard = presence.sync(alice, device, PresenceState::Online).unwrap();
    assert_eq!(state(&presence, alice), (PresenceState::Online, true));
    assert_eq!(told.load(Ordering::SeqCst), 1);
    clock.advance(CURRENTLY_ACTIVE_MS);
    presence.tick();
    assert_eq!(state(&presence, alice), (PresenceState::Online, false));
    assert_eq!(told.load(Ordering::SeqCst), 2, "no longer currently active");
    drop(guard);
    clock.advance(OFFLINE_MS - 1);
    presence.tick();
    assert_eq!(state(&presence, alice).0, PresenceState::Online);
    clock.advance(1);
    presence.tick();
    assert_eq!(state(&presence, alice).0, PresenceState::Offline);
    assert_eq!(
        presence.changed_since(start),
        PresenceChanges::Users(vec![alice.to_owned()])
    );
    assert_eq!(
        presence.changed_since(presence.counter()),
        PresenceChanges::Users(vec![])
    );
    assert_eq!(
        presence.changed_since(PresenceCounter { start: 1, value: 0 }),
        PresenceChanges::All
    );
}

#[test]
fn idleness_and_activity() {
    let (clock, presence) = presence();
    let (alice, device) = (user_id!("@alice:a"), device_id!("A"));
    let _guard = presence.sync(alice, device, PresenceState::Online);
    clock.advance(IDLE_MS);
    presence.tick();
    assert_eq!(state(&presence, alice).0, PresenceState::Unavailable);
    presence.active(alice, device);
    assert_eq!(state(&presence, alice), (PresenceState::Online, true));
    assert_eq!(presence.get(alice).last_active_ago_ms, Some(0));
    clock.advance(ACTIVITY_GRAIN_MS - 1);
    presence.active(alice, device);
    assert_eq!(
        presence.get(alice).last_active_ago_ms,
        Some(ACTIVITY_GRAIN_MS - 1),
        "noted a moment ago"
    );
    clock.advance(1);
    presence.active(alice, device);
    assert_eq!(presence.get(alice).last_active_ago_ms, Some(0));
    // Idle by the client's own word: what the user does counts at once.
    presence.set(alice, device, PresenceState::Unavailable, None);
    presence.active(alice, device);
    assert_eq!(state(&presence, alice), (PresenceState::Online, true));
}

#[test]
fn the_most_present_device_counts() {
    let (_, presence) = presence();
    let alice = user_id!("@alice:a");
    let _one = presence.sync(alice, device_id!("A"), PresenceState::Unavailable);
    assert_eq!(state(&presence, alice).0, PresenceState::Unavailable);
    let two = presence.sync(alice, device_id!("B"), PresenceState::Online);
    assert_eq!(state(&presence, alice).0, PresenceState::Online);
    presence.set(alice, device_id!("B"), PresenceState::Busy, None);
    assert_eq!(state(&presence, alice).0, PresenceState::Busy);
    let _again = presence.sync(alice, device_id!("B"), PresenceState::Online);
    drop(two);
    assert_eq!(
        state(&presence, alice).0,
        PresenceState::Busy,
        "syncing does not end it"
    );
    assert!(
        presence
            .sync(alice, device_id!("C"), PresenceState::Offline)
            .is_none()
    );
}

#[test]
fn the_counter_waits_until_a_change_was_told() {
    let (_, presence) = presence();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (weak, during) = (Arc::downgrade(&presence), seen.clone());
    let note = move |_: &UserId, change: PresenceCounter| {
        if let Some(presence) = weak.upgrade() {
            during.lock().push((
                change.value,
                presence.counter().value,
                presence.last_change().value,
            ));
        }
    };
    presence.on_change(Box::new(note.clone()));
    presence.after_change(Box::new(note));
    let _guard = presence.sync(user_id!("@alice:a"), device_id!("A"), PresenceState::Online);
    assert_eq!(*seen.lock(), [(1, 0, 1), (1, 1, 1)]);
}

#[test]
fn switched_off_everybody_is_offline() {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let off = Arc::new(Presence::new(clock, Arc::new(SeededRandom::new(1)), false));
    let (alice, device) = (user_id!("@alice:a"), device_id!("A"));
    assert!(off.sync(alice, device, PresenceState::Online).is_none());
    off.active(alice, device);
    off.set(alice, device, PresenceState::Busy, None);
    assert_eq!(state(&off, alice), (PresenceState::Offline, false));
    assert_eq!(off.get(alice).last_active_ago_ms, None);
    assert!(off.present().is_empty());
    assert_eq!(off.counter().value, 0);
}
