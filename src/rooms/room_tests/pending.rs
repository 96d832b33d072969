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
    room.finish(*first).await.expect("stored");
    assert!(matches!(
        stage(&room, vec![redaction("bob", &target)]),
        Outcome::Refused(Error::Forbidden(_), _)
    ));
    let by = staged(stage(&room, vec![redaction("alice", &target)]));
    assert!(matches!(
        stage(&room, vec![redaction("alice", &target)]),
        Outcome::Wait(_)
    ));
    let by = room.finish(*by).await.expect("stored");
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
    let first = room.finish(*pending).await.expect("stored").event_id;
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
