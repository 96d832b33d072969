//! The order of events, what is decided and not durable, operations that fail.

#![expect(
    clippy::disallowed_methods,
    reason = "a test awaits the value, or the panic, of what it spawned"
)]

use std::collections::BTreeSet;

use super::*;

#[tokio::test]
async fn concurrent_sends_keep_one_dense_order() {
    let world = World::new(4).await;
    let room = world.room().await;
    let before = room.view();
    let gate = world.log.reserve(room.shard());
    let tasks: Vec<_> = (0..30)
        .map(|number| {
            let room = room.clone();
            let sender = if number % 2 == 0 { "alice" } else { "bob" };
            tokio::spawn(async move {
                room.send(text(sender, &number.to_string()), None)
                    .await
                    .expect("sent")
            })
        })
        .collect();
    settle().await;
    assert_eq!(room.view(), before, "readers see only what is durable");
    assert!(
        tasks.iter().all(|task| !task.is_finished()),
        "nothing is answered before it is durable"
    );
    drop(gate);
    let mut sent = Vec::new();
    for task in tasks {
        sent.push(task.await.expect("no panic"));
    }
    sent.sort_by_key(|sent| sent.position);
    let events = timeline(&room);
    for (at, event) in events.iter().enumerate() {
        assert_eq!(
            event.header.place,
            Place {
                anchor: at as u64 + 1,
                offset: 0
            }
        );
        assert_eq!(event.short as usize, at + 1);
        if at > 0 {
            assert_eq!(event.header.prev.as_slice(), [event.short - 1]);
            assert_eq!(event.pdu.depth(), at as u64 + 1);
        }
    }
    let tail: Vec<_> = events[events.len() - 30..]
        .iter()
        .map(|event| event.id().to_owned())
        .collect();
    assert_eq!(
        tail,
        sent.iter().map(|sent| sent.event_id.clone()).collect::<Vec<_>>()
    );
    assert_eq!(room.view().last_n, events.len() as u64);
}

#[tokio::test]
async fn a_transaction_repeats_while_it_is_pending_and_after() {
    let world = World::new(1).await;
    let room = world.room().await;
    let gate = world.log.reserve(room.shard());
    let send = |id: &'static str| {
        let room = room.clone();
        tokio::spawn(async move { room.send(text("alice", "x"), Some(txn(id))).await.expect("sent") })
    };
    let tasks = [send("T"), send("T"), send("U"), send("T")];
    settle().await;
    assert!(
        tasks.iter().all(|task| !task.is_finished()),
        "a repeat waits as well"
    );
    drop(gate);
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.expect("no panic").event_id);
    }
    assert_eq!((&ids[0], &ids[0]), (&ids[1], &ids[3]));
    assert_ne!(ids[0], ids[2]);
    assert_eq!(send("T").await.expect("no panic").event_id, ids[0]);
    let id = room.id().to_owned();
    let world = world.crash();
    let room = world.rooms.require(&id).expect("the room");
    let again = room.send(text("alice", "x"), Some(txn("T"))).await.expect("sent");
    assert_eq!(again.event_id, ids[0], "after a crash");
    let unique: BTreeSet<_> = timeline(&room)
        .iter()
        .map(|event| event.id().to_owned())
        .collect();
    assert_eq!(unique.len() as u64, room.view().last_n);
}

#[tokio::test]
async fn a_refusal_waits_for_what_it_was_decided_on() {
    let world = World::new(1).await;
    let room = world.room().await;
    let gate = world.log.reserve(room.shard());
    let muted = json!({ "events_default": 50 });
    let levels = staged(stage(&room, vec![state("alice", "m.room.power_levels", muted)]));
    let levels = {
        let room = room.clone();
        tokio::spawn(async move { room.finish(levels).await })
    };
    let refused = {
        let room = room.clone();
        tokio::spawn(async move { room.send(text("bob", "x"), None).await })
    };
    settle().await;
    assert!(
        !refused.is_finished(),
        "a refusal on power levels that a crash may still lose"
    );
    drop(gate);
    levels.await.expect("no panic").expect("stored");
    let outcome = refused.await.expect("no panic");
    assert!(matches!(outcome, Err(Error::Forbidden(_))), "{outcome:?}");
    room.send(text("alice", "x"), None).await.expect("alice may");
}

#[tokio::test]
async fn a_failed_operation_changes_nothing() {
    let world = World::new(1).await;
    let room = world.room().await;
    let before = (
        room.0.head.lock().record.clone(),
        room.view(),
        timeline(&room).len(),
    );
    let events = vec![
        state("alice", "m.room.topic", json!({ "topic": "t" })),
        NewEvent::state(
            &user("bob"),
            "m.room.member",
            "@bob:hs1",
            &json!({ "membership": "leave" }),
        ),
        state("alice", "m.room.power_levels", json!({ "events_default": 100 })),
        text("bob", "bob has left"),
    ];
    assert!(matches!(
        stage(&room, events),
        Outcome::Refused(Error::Forbidden(_), _)
    ));
    let after = (
        room.0.head.lock().record.clone(),
        room.view(),
        timeline(&room).len(),
    );
    assert_eq!(before, after);
    {
        let head = room.0.head.lock();
        assert!(head.pending.state.is_empty() && head.pending.ids.is_empty() && head.pending.keys.is_empty());
        assert_eq!(head.servers.get("hs1"), Some(&2));
    }
    room.send(text("bob", "still here, and may speak"), None)
        .await
        .expect("sent");
    assert_eq!(
        timeline(&room).last().map(|event| event.header.place.anchor),
        Some(before.0.last_n + 1)
    );
    assert!(room.state("m.room.topic", "").expect("a look-up").is_none());
}

#[tokio::test]
async fn a_crash_loses_what_was_not_acknowledged_and_nothing_else() {
    let world = World::new(1).await;
    let room = world.room().await;
    room.send(text("alice", "kept"), None).await.expect("sent");
    let kept: Vec<_> = timeline(&room)
        .iter()
        .map(|event| event.id().to_owned())
        .collect();
    let record = room.0.head.lock().record.clone();
    let gate = world.log.reserve(room.shard());
    let lost = staged(stage(&room, vec![text("alice", "lost")]));
    let (ticket, batch) = lost.sign(&room);
    let lost = ticket.submit(batch);
    let id = room.id().to_owned();
    let world = world.crash();
    drop((gate, lost));
    let room = world.rooms.require(&id).expect("the room");
    assert_eq!(room.0.head.lock().record, record);
    assert_eq!(
        timeline(&room)
            .iter()
            .map(|event| event.id().to_owned())
            .collect::<Vec<_>>(),
        kept
    );
    room.send(text("bob", "and on"), None).await.expect("sent");
    assert_eq!(room.view().last_n, kept.len() as u64 + 1);
}

#[tokio::test]
async fn transactions_are_forgotten_after_a_time() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let world = World::new(4).await;
    let room = world.room().await;
    let send = |id: &'static str| {
        let room = room.clone();
        async move {
            let sent = room.send(text("alice", "x"), Some(txn(id))).await;
            sent.expect("sent").event_id
        }
    };
    let old = send("old").await;
    world.clock.advance(20 * DAY_MS);
    let young = send("young").await;
    // As versions before this one wrote it: without a time.
    let row = crate::keys::txn(room.key(), &txn("ancient").key(&user("alice")));
    let short = room.short_of(&old).expect("a look-up").expect("the event");
    let mut batch = hearth_storage::Batch::new();
    batch.put(
        hearth_storage::Family::RoomTxn,
        row,
        crate::keys::u32_value(short),
    );
    let record = |_| hearth_storage::Record::of(batch);
    world
        .rooms
        .cluster
        .commit(room.key().slot, record)
        .await
        .expect("written");
    let forget = || world.rooms.forget_old_transactions();
    assert_eq!(forget().await.expect("a sweep"), 1, "the ancient one gets a time");
    assert_eq!(send("ancient").await, old);
    world.clock.advance(11 * DAY_MS);
    assert_eq!(forget().await.expect("a sweep"), 1);
    assert_eq!(send("young").await, young, "it is still known");
    assert_eq!(send("ancient").await, old);
    assert_ne!(send("old").await, old);
    world.clock.advance(31 * DAY_MS);
    assert_eq!(forget().await.expect("a sweep"), 3);
}

#[tokio::test]
async fn a_room_is_purged_where_the_disk_is_full() {
    let world = World::new(4).await;
    let room = world.room().await;
    let id = room.id().to_owned();
    let engine = Arc::new(world.engine.crash());
    world.log.close();
    engine.set_free_bytes(Some(0));
    let world = World::open(engine, 4);
    let room = world.rooms.require(&id).expect("the room");
    let full = room.send(text("alice", "x"), None).await;
    assert!(matches!(
        full,
        Err(Error::Storage(hearth_storage::Error::DiskFull))
    ));
    let purged = world.rooms.purge(&id).await.expect("purged");
    assert_eq!(purged.kicked.len(), 2);
    let alice = world
        .users
        .get(&user("alice"))
        .expect("a look-up")
        .expect("alice");
    assert!(
        alice
            .rooms(&[hearth_users::Membership::Join])
            .expect("a list")
            .is_empty()
    );
    // Who held the room's handle adds nothing to what is gone.
    let late = room.send_anyway(text("alice", "x"), None).await;
    assert!(matches!(late, Err(Error::NotFound(_))), "{late:?}");
    for family in [
        hearth_storage::Family::Room,
        hearth_storage::Family::RoomEvent,
        hearth_storage::Family::RoomTimeline,
    ] {
        let mut rows = 0;
        let count = &mut |_: &[u8], _: &[u8]| {
            rows += 1;
            true
        };
        hearth_storage::Reader::scan(&*world.engine, family, &[], &[0xFF; 8], false, count).expect("a scan");
        assert_eq!(rows, 0, "{family:?}");
    }
}

#[tokio::test]
async fn rooms_that_nobody_uses_are_dropped() {
    let world = World::new(1).await;
    let mut held = Vec::new();
    for number in 0..600 {
        let mut spec = CreateRoom::new(user("alice"), Preset::PrivateChat);
        spec.name = Some(number.to_string());
        let room = world.rooms.create(spec).await.expect("a room");
        if number % 100 == 0 {
            held.push(room);
        }
    }
    assert_eq!(world.rooms.loaded.len(), 600);
    let id = held[0].id().to_owned();
    drop(world.rooms.loaded.remove(&id));
    world.rooms.get(&id).expect("a look-up").expect("the room");
    assert!(world.rooms.loaded.len() <= held.len() + 1);
}

#[tokio::test]
async fn equal_state_said_at_once_is_one_event() {
    let world = World::new(1).await;
    let room = world.room().await;
    let before = timeline(&room).len();
    let topic = || room.send(state("alice", "m.room.topic", json!({ "topic": "tea" })), None);
    let carol = user("carol");
    let joins = (room.join(&carol, Map::new()), room.join(&carol, Map::new()));
    let (one, two, ..) = tokio::join!(topic(), topic(), joins.0, joins.1);
    assert_eq!(one.expect("sent").event_id, two.expect("sent").event_id);
    assert_eq!(timeline(&room).len(), before + 2, "a topic and a join");
    // Other state, and the same after it, are new.
    let other = state("alice", "m.room.topic", json!({ "topic": "cake" }));
    room.send(other, None).await.expect("sent");
    topic().await.expect("sent");
    assert_eq!(timeline(&room).len(), before + 4);
}
