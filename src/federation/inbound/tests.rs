//! What other servers send, on paused time.

use serde_json::json;

use super::*;
use crate::world::{World, pass};

fn message(room: &Room, body: &str) -> Value {
    json!({
        "type": "m.room.message", "room_id": room.id(), "sender": "@bob:b", "content": { "body": body },
        "origin_server_ts": 1, "depth": 9, "prev_events": [], "auth_events": [],
        "hashes": { "sha256": body }, "signatures": {},
    })
}

fn judged(world: &World) -> Vec<String> {
    let seen = world.judge.seen.lock();
    seen.iter().map(|(_, body)| body.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn events_are_judged_in_order_and_refusals_told() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    let mut elsewhere = message(&room, "elsewhere");
    elsewhere["room_id"] = "!other:b".into();
    let mut malformed = message(&room, "malformed");
    malformed["depth"] = "deep".into();
    let pdus = vec![message(&room, "one"), elsewhere, malformed, message(&room, "two")];
    let answer = world.receive("b", "1", pdus.clone(), vec![]).await;
    let outcomes = answer["pdus"].as_object().expect("an object");
    assert_eq!(outcomes.len(), 4);
    let errors: Vec<_> = outcomes
        .values()
        .filter_map(|one| one["error"].as_str())
        .collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    pass(1).await;
    assert_eq!(judged(&world), ["one", "two"]);
    assert_eq!(world.receive("b", "1", pdus, vec![]).await, answer);
    pass(1).await;
    assert_eq!(judged(&world), ["one", "two"], "a repeated transaction");
}

#[tokio::test(start_paused = true)]
async fn too_much_at_once_is_refused() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    let pdus: Vec<Value> = (0..51).map(|at| message(&room, &at.to_string())).collect();
    for body in [
        json!({ "pdus": pdus }).to_string(),
        json!({ "pdus": [], "edus": vec![json!({}); 101] }).to_string(),
        "[".to_owned(),
    ] {
        let origin = ServerName::parse("b").expect("a name");
        let refused = world.inbound.transaction(&origin, "1", body.as_bytes()).await;
        assert_eq!(
            refused.expect_err("it is refused").body()["errcode"],
            "M_BAD_JSON"
        );
    }
    pass(1).await;
    assert!(judged(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_survives_a_crash() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    world.judge.failing.lock().insert("one".to_owned());
    world
        .receive(
            "b",
            "1",
            vec![message(&room, "one"), message(&room, "two")],
            vec![],
        )
        .await;
    let world = world.crash().await;
    pass(1).await;
    assert_eq!(judged(&world), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_fails_holds_up_no_other() {
    let world = World::new().await;
    let (room, other) = (
        world.room(&[("bob", "b")]).await,
        world.room(&[("bob", "b")]).await,
    );
    world.judge.failing.lock().insert("away".to_owned());
    world.judge.panicking.lock().insert("bad".to_owned());
    let pdus = vec![
        message(&room, "away"),
        message(&room, "bad"),
        message(&room, "good"),
        message(&other, "other"),
    ];
    world.receive("b", "1", pdus, vec![]).await;
    pass(0).await;
    assert_eq!(judged(&world).len(), 2, "one of each room");
    assert!(judged(&world).contains(&"other".to_owned()));
    pass(3600).await;
    let judged = judged(&world);
    assert_eq!(judged.iter().filter(|body| *body == "away").count(), 4);
    assert_eq!(judged.iter().filter(|body| *body == "bad").count(), 4);
    assert_eq!(judged.last().map(String::as_str), Some("good"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_holds_up_no_other_in_the_room() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b"), ("carl", "c")]).await;
    world.judge.failing.lock().insert("away".to_owned());
    let pdus = vec![message(&room, "away"), message(&room, "behind")];
    world.receive("b", "1", pdus, vec![]).await;
    pass(0).await;
    world
        .receive("c", "1", vec![message(&room, "fine")], vec![])
        .await;
    pass(0).await;
    assert_eq!(judged(&world), ["away", "fine"]);
    let status = world.inbound.status();
    assert!(status.len() == 1 && status[0].is_quarantined(), "{status:?}");
    let origin = &status[0].origins[0];
    assert_eq!(
        (origin.origin.as_str(), origin.waiting, origin.failures),
        ("b", 2, 1)
    );
    assert!(origin.oldest_ms > 0 && !origin.paused.is_zero());
    world.judge.failing.lock().clear();
    pass(3600).await;
    assert_eq!(judged(&world), ["away", "fine", "away", "behind"]);
    assert!(world.inbound.status().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_checked_holds_up_no_other() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    world.judge.unchecked.lock().insert("of another".to_owned());
    let pdus = vec![message(&room, "of another"), message(&room, "behind")];
    world.receive("b", "1", pdus, vec![]).await;
    pass(0).await;
    assert_eq!(judged(&world), ["of another", "behind"]);
    world.judge.unchecked.lock().clear();
    pass(10).await;
    assert_eq!(judged(&world), ["of another", "behind", "of another"]);
}

/// How often an event was judged.
fn times(world: &World, body: &str) -> usize {
    judged(world).iter().filter(|judged| *judged == body).count()
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_checked_for_long_waits_for_the_key() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    let cannot = |world: &World, bodies: &[&str]| {
        *world.judge.unchecked.lock() = bodies.iter().map(|body| (*body).to_owned()).collect();
    };
    cannot(&world, &["early", "late"]);
    let pdus = vec![message(&room, "early"), message(&room, "behind")];
    world.receive("b", "1", pdus, vec![]).await;
    pass(3600).await;
    assert_eq!(times(&world, "early"), 4);
    assert_eq!(world.inbound.held_events(), 1);
    assert!(world.inbound.status().is_empty(), "it holds up nothing");
    // It survives, and when the key is there its server need not do anything.
    let world = world.crash().await;
    cannot(&world, &["early", "late"]);
    pass(60).await;
    assert_eq!((times(&world, "early"), world.inbound.held_events()), (4, 1));
    cannot(&world, &[]);
    pass(3600).await;
    assert_eq!((times(&world, "early"), world.inbound.held_events()), (5, 0));

    // A server that sends something is there.
    cannot(&world, &["late"]);
    world
        .receive("b", "2", vec![message(&room, "late")], vec![])
        .await;
    pass(1800).await;
    assert_eq!((times(&world, "late"), world.inbound.held_events()), (4, 1));
    cannot(&world, &[]);
    world.receive("gone", "3", vec![], vec![]).await;
    pass(1).await;
    assert_eq!((times(&world, "late"), world.inbound.held_events()), (5, 0));
    // Nobody waits for ever.
    cannot(&world, &["never"]);
    world
        .receive("b", "4", vec![message(&room, "never")], vec![])
        .await;
    pass(8 * 24 * 3600).await;
    assert_eq!((times(&world, "never"), world.inbound.held_events()), (4, 0));
}

#[tokio::test]
async fn an_event_is_not_judged_again_before_it_leaves_the_disk() {
    let world = World::threaded().await;
    let room = world.room(&[("bob", "b")]).await;
    let bodies = ["one", "two", "three", "four"];
    for (at, body) in bodies.iter().enumerate() {
        world.receive("b", body, vec![message(&room, body)], vec![]).await;
        let started = std::time::Instant::now();
        while judged(&world).len() <= at || !world.inbound.queues.is_empty() {
            assert!(started.elapsed().as_secs() < 10, "{body} is judged");
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(judged(&world), bodies);
}

#[tokio::test(start_paused = true)]
async fn typing_and_receipts_of_others_show() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    world.say(&room, "one").await;
    let newest = room.tips().expect("tips")[0].id().to_owned();
    let receipt = json!({ "data": { "ts": 5, "thread_id": "main" }, "event_ids": [newest] });
    let typing = |user: &str| json!({ "edu_type": "m.typing", "content": { "room_id": room.id(), "user_id": user, "typing": true } });
    let receipts = json!({ "edu_type": "m.receipt", "content": { room.id().as_str(): { "m.read": {
        "@bob:b": receipt, "@alice:hs1": receipt, "@eve:b": receipt } } } });
    let edus = vec![typing("@bob:b"), typing("@alice:hs1"), typing("@eve:b"), receipts];
    world.receive("b", "1", vec![], edus).await;
    assert_eq!(room.typing().0, [crate::world::user("bob", "b")]);
    let nobody = crate::world::user("nobody", "hs1");
    let found = room.receipts(&nobody).expect("receipts");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].user.as_str(), found[0].ts), ("@bob:b", 5));
    assert_eq!(found[0].thread.as_deref(), Some("main"));
    pass(31).await;
    assert!(room.typing().0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn receipts_on_events_that_are_not_here_are_kept_as_they_are() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b"), ("carol", "b"), ("dave", "b")]).await;
    let nobody = crate::world::user("nobody", "hs1");
    let send = async |txn: &str, user: &str, event: &str, ts: u64, thread: Option<&str>| {
        let mut data = json!({ "ts": ts });
        if let Some(thread) = thread {
            data["thread_id"] = thread.into();
        }
        let content =
            json!({ room.id().as_str(): { "m.read": { user: { "data": data, "event_ids": [event] } } } });
        let edu = json!({ "edu_type": "m.receipt", "content": content });
        world.receive("b", txn, vec![], vec![edu]).await;
        pass(0).await;
        let found = room.receipts(&nobody).expect("receipts");
        let found = found.into_iter().filter(|receipt| receipt.user == user);
        found
            .map(|receipt| (receipt.event_id, receipt.ts))
            .collect::<Vec<_>>()
    };
    let one = |event: &str, ts: u64| vec![(event.to_owned(), ts)];
    assert_eq!(send("1", "@bob:b", "$before", 5, None).await, one("$before", 5));
    assert_eq!(send("2", "@bob:b", "$older", 4, None).await, one("$before", 5));
    assert_eq!(
        send("3", "@bob:b", "no id at all", 6, None).await,
        one("no id at all", 6)
    );
    world.say(&room, "one").await;
    let newest = room.tips().expect("tips")[0].id().to_string();
    assert_eq!(send("4", "@bob:b", &newest, 3, None).await, one(&newest, 3));
    assert_eq!(
        send("5", "@bob:b", "$other", 9, None).await,
        one(&newest, 3),
        "a known event stands above"
    );
    // There is no end to threads that are made up.
    assert!(
        send("6", "@carol:b", "$before", 5, Some("$thread"))
            .await
            .is_empty()
    );
    assert_eq!(
        send("7", "@carol:b", "$before", 5, Some("main")).await,
        one("$before", 5)
    );
    assert_eq!(
        send("8", "@dave:b", &newest, 5, Some(&newest)).await,
        one(&newest, 5)
    );
    assert!(
        send("9", "@eve:b", "$before", 5, None).await.is_empty(),
        "she is not in the room"
    );
}

/// What was acknowledged is not dropped because there is no room for it just then.
#[tokio::test(start_paused = true)]
async fn a_full_disk_drops_no_event() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    *world.judge.is_full.lock() = true;
    let pdus = vec![message(&room, "one"), message(&room, "two")];
    world.receive("b", "1", pdus, vec![]).await;
    pass(3600).await;
    assert!(times(&world, "one") > 4 && times(&world, "two") == 0);
    *world.judge.is_full.lock() = false;
    let before = times(&world, "one");
    pass(3600).await;
    assert_eq!((times(&world, "one"), times(&world, "two")), (before + 1, 1));
    assert!(world.inbound.status().is_empty());
}

#[tokio::test]
async fn what_waits_for_a_room_is_bounded_in_bytes() {
    const MIB: usize = 1 << 20;
    let world = World::new().await;
    let room = world.room(&[]).await;
    let queue = RoomQueue::new(room, None);
    let admit = |origin: &str, count: usize, bytes: usize| {
        let origin = ServerName::parse(origin).expect("a name");
        queue.admit(&origin, 1, count, bytes)
    };
    assert!(admit("a", 1, 31 * MIB));
    assert!(!admit("a", 1, 2 * MIB), "of one server");
    assert!(admit("b", 1, 31 * MIB));
    assert!(!admit("c", 1, 3 * MIB), "of all");
    assert!(admit("c", 1, MIB));
}

/// The events of a room that cannot be read keep the server from nothing else.
#[tokio::test(start_paused = true)]
async fn a_room_that_cannot_be_read_keeps_no_other_from_starting() {
    let world = World::new().await;
    let (bad, fine) = (
        world.room(&[("bob", "b")]).await,
        world.room(&[("bob", "b")]).await,
    );
    world
        .judge
        .failing
        .lock()
        .extend(["bad".to_owned(), "fine".to_owned()]);
    let pdus = vec![message(&bad, "bad"), message(&fine, "fine")];
    world.receive("b", "1", pdus, vec![]).await;
    world.damage_room(&bad);
    let world = world.crash().await;
    pass(1).await;
    assert_eq!(judged(&world), ["fine"]);
}

/// Answers are kept: their size must not be up to who asks.
#[tokio::test]
async fn what_is_answered_for_malformed_events_is_small() {
    let world = World::new().await;
    let malformed = json!({ "room_id": "!r:b", "event_id": "$".repeat(1 << 20), "depth": "deep" });
    let answer = world.receive("b", "1", vec![malformed], vec![]).await;
    assert_eq!(answer["pdus"].as_object().map(Map::len), Some(1));
    assert!(
        answer.to_string().len() < 1_000,
        "{} bytes",
        answer.to_string().len()
    );
}

/// Rooms that wait for servers which take their time leave the turns to the others.
#[tokio::test(start_paused = true)]
async fn rooms_that_are_slow_hold_up_no_other() {
    let world = World::new().await;
    world.judge.hanging.lock().insert("slow".to_owned());
    for at in 0..ROOMS_AT_ONCE_MAX {
        let room = world.room(&[("bob", "b")]).await;
        let pdus = vec![message(&room, "slow")];
        world.receive("b", &at.to_string(), pdus, vec![]).await;
    }
    let room = world.room(&[("carl", "c")]).await;
    pass(1).await;
    world
        .receive("c", "1", vec![message(&room, "fine")], vec![])
        .await;
    pass(60).await;
    assert_eq!(times(&world, "fine"), 1);
}
