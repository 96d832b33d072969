//! Redactions, threads and annotations, also of what is not durable yet.

#![expect(
    clippy::disallowed_methods,
    reason = "a test awaits the value, or the panic, of what it spawned"
)]

use super::*;

fn reply(root: &ruma::EventId, body: &str) -> NewEvent {
    let relates = json!({ "rel_type": "m.thread", "event_id": root });
    message("bob", json!({ "body": body, "m.relates_to": relates }))
}

#[tokio::test]
async fn a_redaction_waits_for_its_target() {
    let world = World::new(1).await;
    let room = world.room().await;
    let first = staged(stage(&room, vec![text("alice", "x")]));
    let target = first.last_event_id();
    assert!(matches!(
        stage(&room, vec![redaction("alice", &target)]),
        Outcome::Wait(_)
    ));
    room.finish(first).await.expect("stored");
    assert!(matches!(
        stage(&room, vec![redaction("bob", &target)]),
        Outcome::Refused(Error::Forbidden(_), _)
    ));
    let by = staged(stage(&room, vec![redaction("alice", &target)]));
    assert!(matches!(
        stage(&room, vec![redaction("alice", &target)]),
        Outcome::Wait(_)
    ));
    let by = room.finish(by).await.expect("stored");
    let event = room.event_by_id(&target).expect("a look-up").expect("the event");
    assert!(event.is_redacted());
    assert_eq!(event.pdu.content(), b"{}");
    let redaction = room
        .event_by_id(&by.event_id)
        .expect("a look-up")
        .expect("the redaction");
    assert_eq!(event.header.redacted_by, Some(redaction.short));
}

#[tokio::test]
async fn redacted_power_levels_count_at_once() {
    let world = World::new(1).await;
    let room = world.create("10").await;
    room.join(&user("bob"), Map::new()).await.expect("bob joins");
    let levels = json!({ "users": { "@alice:hs1": 100 }, "events": { "m.room.topic": 0 }, "invite": 50 });
    let levels = room
        .send(state("alice", "m.room.power_levels", levels), None)
        .await
        .expect("sent");
    let (bob, carol) = (user("bob"), user("carol"));
    let refused = room.invite(&bob, &carol, Map::new(), None).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    // In this version redaction takes the level that inviting needs, and keeps those of event types.
    room.send(redaction("alice", &levels.event_id), None)
        .await
        .expect("redacted");
    room.invite(&bob, &carol, Map::new(), None)
        .await
        .expect("bob may invite now");
    room.send(state("bob", "m.room.topic", json!({ "topic": "t" })), None)
        .await
        .expect("bob still may");
}

#[tokio::test]
async fn threads_are_counted_ahead_of_storage() {
    let world = World::new(1).await;
    let room = world.room().await;
    let root = room
        .send(text("alice", "root"), None)
        .await
        .expect("sent")
        .event_id;
    let root_short = room.short_of(&root).expect("a look-up").expect("the root");
    let gate = world.log.reserve(room.shard());
    let tasks: Vec<_> = (0..5)
        .map(|number| {
            let (room, event) = (room.clone(), reply(&root, &number.to_string()));
            tokio::spawn(async move { room.send(event, None).await.expect("sent").event_id })
        })
        .collect();
    settle().await;
    assert_eq!(room.thread(root_short).expect("a look-up"), None);
    drop(gate);
    let mut replies = Vec::new();
    for task in tasks {
        replies.push(task.await.expect("no panic"));
    }
    let thread = |room: &Room| room.thread(root_short).expect("a look-up");
    let newest = thread(&room).expect("a thread");
    assert_eq!(newest.count, 5);
    assert_eq!(
        newest.latest,
        timeline(&room).last().map(|event| event.short).expect("events")
    );
    room.send(redaction("bob", &replies[1]), None)
        .await
        .expect("redacted");
    room.send(redaction("alice", &replies[1]), None)
        .await
        .expect("redacted again");
    assert_eq!(thread(&room).map(|thread| thread.count), Some(4));
    assert_eq!(room.threads(None, 10).expect("a list").len(), 1);
    assert!(room.takes_part(root_short, &user("bob")).expect("a look-up"));
    assert!(!room.takes_part(root_short, &user("alice")).expect("a look-up"));
    let id = room.id().to_owned();
    let world = world.crash();
    let room = world.rooms.require(&id).expect("the room");
    assert_eq!(thread(&room).map(|thread| thread.count), Some(4));
    for reply in [0, 2, 3, 4] {
        room.send(redaction("alice", &replies[reply]), None)
            .await
            .expect("redacted");
    }
    assert_eq!(thread(&room), None);
    assert!(room.threads(None, 10).expect("a list").is_empty());
}

#[tokio::test]
async fn a_thread_may_hang_on_state_that_others_cite() {
    let world = World::new(1).await;
    let room = world.room().await;
    let root = room.state("m.room.power_levels", "").expect("a look-up");
    let root = root.expect("power levels");
    for number in 0..2 {
        room.send(reply(root.id(), &number.to_string()), None)
            .await
            .expect("sent");
        // Not from what is kept in memory.
        room.0.head.lock().thread_counts.clear();
    }
    let counted = room.thread_count(root.short, Place::END).expect("a look-up");
    assert_eq!(counted.notify, 2);
    // What cites the power levels is found, as state resolution asks for it, and nothing else.
    let (start, end, skip) = crate::keys::all_citing(room.key(), root.short);
    let mut citing = Vec::new();
    room.reader()
        .scan(
            hearth_storage::Family::RoomIndex,
            &start,
            &end,
            true,
            &mut |key, _| {
                citing.push(crate::keys::read_u32(&key[skip..], "citation").expect("a number"));
                true
            },
        )
        .expect("a scan");
    assert!(!citing.is_empty());
    for short in citing {
        let event = room.event(short).expect("a look-up").expect("an event");
        assert!(event.header.auth.contains(&root.short));
    }
}

#[tokio::test]
async fn of_two_receipts_at_once_the_newer_one_stays() {
    let world = World::new(1).await;
    let room = world.room().await;
    let mut events = Vec::new();
    for body in ["old", "new"] {
        events.push(room.send(text("alice", body), None).await.expect("sent").event_id);
    }
    let gate = world.log.reserve(room.shard());
    let set = |at: usize| {
        let (room, event) = (room.clone(), events[at].clone());
        tokio::spawn(async move {
            let public = crate::ReceiptKind::Public;
            room.set_receipt(&user("bob"), public, None, &event).await
        })
    };
    // The older event is read on another device, and is heard of while the newer one is on its way.
    let (newer, older) = (set(1), set(0));
    settle().await;
    assert!(!newer.is_finished() && !older.is_finished());
    drop(gate);
    for task in [newer, older] {
        task.await.expect("no panic").expect("set");
    }
    let receipt = room.receipt(&user("bob"), crate::ReceiptKind::Public, None);
    assert_eq!(
        receipt.expect("a look-up").map(|found| found.event_id),
        Some(events[1].to_string())
    );
    let between = room.receipts_between(&user("alice"), 0, u64::MAX - 1);
    assert_eq!(
        between.expect("a list").len(),
        1,
        "nothing is left of the older one"
    );
}

#[tokio::test]
async fn a_receipt_of_a_thread_is_on_an_event_of_the_thread() {
    let world = World::new(1).await;
    let room = world.room().await;
    let root = room
        .send(text("alice", "root"), None)
        .await
        .expect("sent")
        .event_id;
    let inside = room.send(reply(&root, "in"), None).await.expect("sent").event_id;
    let outside = room
        .send(text("alice", "out"), None)
        .await
        .expect("sent")
        .event_id;
    for (event, thread, taken) in [
        (&root, root.as_str(), true),
        (&inside, root.as_str(), true),
        (&outside, "main", true),
        (&outside, root.as_str(), false),
        (&outside, "$nothing", false),
        (&outside, "anything", false),
    ] {
        let public = crate::ReceiptKind::Public;
        let outcome = room.set_receipt(&user("bob"), public, Some(thread), event).await;
        assert_eq!(outcome.is_ok(), taken, "{event} in {thread}: {outcome:?}");
        assert!(taken || matches!(outcome, Err(Error::InvalidParam(_))));
    }
}

#[tokio::test]
async fn an_annotation_counts_once() {
    let world = World::new(1).await;
    let room = world.room().await;
    let target = room.send(text("alice", "x"), None).await.expect("sent").event_id;
    let react = |sender: &str, key: &str| NewEvent {
        kind: "m.reaction".to_owned(),
        ..message(
            sender,
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": target, "key": key } }),
        )
    };
    let pending = staged(stage(&room, vec![react("bob", "+")]));
    assert!(matches!(stage(&room, vec![react("bob", "+")]), Outcome::Wait(_)));
    let first = room.finish(pending).await.expect("stored").event_id;
    assert!(matches!(
        stage(&room, vec![react("bob", "+")]),
        Outcome::Refused(Error::DuplicateAnnotation, _)
    ));
    room.send(react("bob", "-"), None).await.expect("another key");
    room.send(react("alice", "+"), Some(txn("T")))
        .await
        .expect("another user");
    room.send(react("alice", "+"), Some(txn("T")))
        .await
        .expect("the same transaction");
    room.send(redaction("bob", &first), None).await.expect("redacted");
    room.send(react("bob", "+"), None)
        .await
        .expect("after the redaction");
}

#[tokio::test]
async fn a_full_cache_of_members_lets_nobody_out() {
    let world = World::new(1).await;
    let room = world.room().await;
    let id = room.id().to_owned();
    let world = world.crash();
    let room = world.rooms.require(&id).expect("the room");
    {
        let mut head = room.0.head.lock();
        for number in 0..4095 {
            head.auth.members.insert(user(&format!("u{number}")), None);
        }
    }
    // Both alice and carol are looked up, and the second must not push the first out.
    room.invite(&user("alice"), &user("carol"), Map::new(), None)
        .await
        .expect("invited");
}

/// Room versions 1 and 2 write the reference hash of an event beside its id ("Room Version 1", event format), also of one
/// that is decided and not durable yet.
#[tokio::test]
async fn references_of_old_versions_have_hashes() {
    for version in ["1", "2"] {
        let world = World::new(1).await;
        let room = world.create(version).await;
        let gate = world.log.reserve(room.shard());
        let sends = ["one", "two", "three"].map(|body| {
            let room = room.clone();
            tokio::spawn(async move { room.send(text("alice", body), None).await.expect("sent") })
        });
        settle().await;
        drop(gate);
        for send in sends {
            send.await.expect("no panic");
        }
        let events = timeline(&room);
        for event in &events {
            let json: Value = serde_json::from_slice(&event.pdu.json).expect("JSON");
            for list in ["prev_events", "auth_events"] {
                for reference in json[list].as_array().expect("a list") {
                    let target = events.iter().find(|event| reference[0] == event.id().as_str());
                    let hash = target.expect("an event").pdu.reference_hash(room.rules());
                    let expected = json!({ "sha256": hearth_events::base64_encode(&hash) });
                    assert_eq!(
                        reference[1],
                        expected,
                        "{list} of {} in {version}",
                        event.pdu.kind()
                    );
                }
            }
        }
        assert_eq!(events.last().expect("an event").pdu.prev_events().len(), 1);
    }
}
