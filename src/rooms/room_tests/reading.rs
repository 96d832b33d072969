//! States, places and ids.

use hearth_core::Shutdown;

use super::*;
use crate::DirectoryEntry;

#[tokio::test]
async fn roots_name_the_state_after_each_event() {
    let world = World::new(1).await;
    let room = world.room().await;
    for number in 0..40 {
        let kind = format!("org.example.{}", number % 7);
        room.send(state("alice", &kind, json!({ "v": number })), None)
            .await
            .expect("sent");
        room.send(text("bob", "between"), None).await.expect("sent");
    }
    let events = timeline(&room);
    for pair in events.windows(2) {
        let after = room.state_after(&pair[0]).expect("a state");
        assert_eq!(after, pair[1].header.state_before, "after {}", pair[0].short);
    }
    let ids = |list: Vec<Arc<Event>>| {
        let mut ids: Vec<_> = list.iter().map(|event| event.id().to_owned()).collect();
        ids.sort();
        ids
    };
    let root = room.view().root;
    assert_eq!(
        room.state_after(events.last().expect("events")).expect("a state"),
        root
    );
    assert_eq!(
        ids(room.full_state_at(root).expect("a state")),
        ids(room.full_state().expect("the state"))
    );
    for event in &events {
        let position = event.header.position;
        let last_of_batch = events
            .iter()
            .rfind(|other| other.header.position == position)
            .expect("itself");
        let expected = room.state_after(last_of_batch).expect("a state");
        assert_eq!(
            room.state_root_at(position).expect("a root"),
            expected,
            "at {position}"
        );
        let place = room.place_at(position).expect("a place");
        assert_eq!(place, last_of_batch.header.place, "at {position}");
        assert_eq!(room.state_root_after(place).expect("a root"), expected);
    }
    let first = events[0].header.position;
    assert_eq!(room.place_at(first - 1).expect("a place"), Place::START);
    assert_eq!(
        room.place_at(u64::MAX).expect("a place"),
        events.last().expect("events").header.place
    );
    let id = room.id().to_owned();
    let room = world.crash().rooms.require(&id).expect("the room");
    assert_eq!(room.view().root, root);
}

#[tokio::test]
async fn equal_states_are_equal_roots() {
    let world = World::new(1).await;
    let room = world.room().await;
    let before = room.view().root;
    room.send(text("alice", "x"), None).await.expect("sent");
    assert_eq!(room.view().root, before, "a message is no state");
    room.send(state("alice", "m.room.topic", json!({ "topic": "t" })), None)
        .await
        .expect("sent");
    let after = room.view().root;
    assert_ne!(after, before);
    let changed = room.state_diff(before, after).expect("a difference");
    assert_eq!(changed, [timeline(&room).last().expect("events").short]);
    assert!(room.state_diff(after, after).expect("a difference").is_empty());
}

#[tokio::test]
async fn ids_of_rooms_by_version() {
    let world = World::new(4).await;
    for version in 1..=12 {
        let room = world.create(&version.to_string()).await;
        let events = timeline(&room);
        let create = &events[0];
        assert_eq!(create.pdu.kind(), "m.room.create");
        if version == 12 {
            assert_eq!(room.id().as_str()[1..], create.id().as_str()[1..]);
            assert!(
                events[1..]
                    .iter()
                    .all(|event| !event.pdu.auth_events().contains(&create.id().to_owned()))
            );
        } else {
            assert!(room.id().as_str().ends_with(":hs1"));
            assert!(
                events[1..]
                    .iter()
                    .all(|event| event.header.auth.contains(&create.short))
            );
        }
        assert_eq!(room.create_info().creators.len(), 1, "version {version}");
        assert!(world.rooms.get(room.id()).expect("a look-up").is_some());
    }
    // Two rooms made in one millisecond are two rooms.
    let (one, two) = (world.create("12").await, world.create("12").await);
    assert_ne!(one.id(), two.id());
}

#[tokio::test]
async fn a_declined_invitation_shows_where_invitations_do() {
    let world = World::new(1).await;
    let mut spec = CreateRoom::new(user("alice"), Preset::PrivateChat);
    let history = json!({ "history_visibility": "invited" });
    spec.initial_state = vec![("m.room.history_visibility".to_owned(), String::new(), history)];
    let room = world.rooms.create(spec).await.expect("a room");
    room.invite(&user("bob"), &user("carol"), Map::new(), None)
        .await
        .expect_err("bob is not in the room");
    room.invite(&user("alice"), &user("bob"), Map::new(), None)
        .await
        .expect("invited");
    room.leave(&user("bob"), None).await.expect("declined");
    room.send(text("alice", "later"), None).await.expect("sent");
    let events = timeline(&room);
    let mut viewer = room.viewer(&user("bob")).expect("a viewer");
    let seen: Vec<_> = events
        .iter()
        .filter(|event| viewer.may_see(event).expect("an answer"))
        .map(|event| event.short)
        .collect();
    let count = events.len() as u32;
    assert_eq!(seen, [count - 2, count - 1], "the invitation and its end");
}

#[tokio::test]
async fn receipts_move_forward_only() {
    let world = World::new(1).await;
    let room = world.room().await;
    let (one, two) = (
        room.send(text("alice", "one"), None)
            .await
            .expect("sent")
            .event_id,
        room.send(text("alice", "two"), None)
            .await
            .expect("sent")
            .event_id,
    );
    let bob = user("bob");
    for id in [&one, &two, &one] {
        room.set_receipt(&bob, crate::ReceiptKind::Public, None, id)
            .await
            .expect("set");
    }
    let found = room
        .receipt(&bob, crate::ReceiptKind::Public, None)
        .expect("a look-up")
        .expect("a receipt");
    assert_eq!(found.event_id, two.as_str());
    let between = room
        .receipts_between(&user("alice"), 0, u64::MAX - 1)
        .expect("receipts");
    assert_eq!(between.len(), 1, "the row of the first is gone: {between:?}");
}

/// Of the events of one millisecond that is meant which is first in the graph, or last; of those of the very time that is
/// asked for, one that says something.
#[tokio::test]
async fn events_of_one_millisecond_are_told_apart() {
    let world = World::new(1).await;
    let room = world.room().await;
    let at = |event: NewEvent, ms: u64| NewEvent {
        timestamp_ms: Some(1_700_000_000_000 + ms),
        ..event
    };
    let mut sent = Vec::new();
    for event in [
        at(state("alice", "org.example.s", json!({ "v": 1 })), 10),
        at(text("alice", "one"), 10),
        at(text("bob", "two"), 10),
        at(state("alice", "org.example.s", json!({ "v": 2 })), 10),
        at(state("alice", "org.example.s", json!({ "v": 3 })), 20),
        at(text("alice", "three"), 30),
    ] {
        sent.push(room.send(event, None).await.expect("sent").event_id);
    }
    let mut viewer = room.viewer(&user("alice")).expect("a viewer");
    let mut near = |ms: u64, backward: bool| {
        let found = room.event_near(1_700_000_000_000 + ms, backward, &mut viewer);
        let found = found.expect("a look-up").map(|event| event.id().to_owned());
        found.and_then(|id| sent.iter().position(|one| *one == id))
    };
    for (ms, backward, expected) in [
        (5, false, Some(0)),
        (10, false, Some(1)),
        (10, true, Some(2)),
        (15, true, Some(3)),
        (15, false, Some(4)),
        (20, true, Some(4)),
        (25, false, Some(5)),
        (40, true, Some(5)),
        (40, false, None),
    ] {
        assert_eq!(near(ms, backward), expected, "{ms} {backward}");
    }
}

/// The public directory is read beside the requests, and stays right.
#[tokio::test]
async fn nobody_waits_for_the_directory_after_a_start() {
    let world = World::new(1).await;
    let room = world.room().await;
    world.rooms.set_listed(&room, true).await.expect("it is listed");
    let shutdown = Shutdown::new();
    assert!(!world.rooms.directory.is_warm());
    world.rooms.start(&shutdown).expect("the rooms start");
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(world.rooms.directory.is_warm());
    let page = world.rooms.public_rooms(DirectoryEntry::default()).await;
    assert_eq!(page.expect("a page").total, 1);
    world
        .rooms
        .set_listed(&room, false)
        .await
        .expect("it is not listed");
    let page = world.rooms.public_rooms(DirectoryEntry::default()).await;
    assert_eq!(page.expect("a page").total, 0);
    shutdown.trigger();
}
