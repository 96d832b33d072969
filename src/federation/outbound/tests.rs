//! What other servers are sent, on paused time.

use std::collections::BTreeMap;

use ruma::device_id;
use serde_json::json;
use serde_json::value::to_raw_value;

use super::*;
use crate::world::{OWN, World, pass, settle, user};

fn to_device(target: &str, at: usize) -> hearth_users::ToDeviceMessages {
    let content = to_raw_value(&json!({ "at": at })).expect("JSON");
    let devices = BTreeMap::from([("D".to_owned(), content)]);
    BTreeMap::from([(user(target, "b"), devices)])
}

#[tokio::test(start_paused = true)]
async fn events_go_to_the_servers_in_the_room() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b"), ("carol", "c")]).await;
    world.say(&room, "one").await;
    world.say(&room, "two").await;
    pass(1).await;
    assert_eq!(world.others.bodies("b"), ["one", "two"]);
    assert_eq!(world.others.bodies("c"), ["one", "two"]);
    assert!(world.others.transactions(OWN).is_empty());
    world.member(&room, "carol", "c", "leave").await;
    world.say(&room, "three").await;
    pass(1).await;
    assert_eq!(world.others.bodies("b"), ["one", "two", "three"]);
    assert_eq!(world.others.bodies("c"), ["one", "two"]);
    assert!(world.outbound.status().is_empty());
}

#[tokio::test(start_paused = true)]
async fn transactions_are_bounded_and_in_order() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    for at in 0..120 {
        world.say(&room, &at.to_string()).await;
    }
    pass(5).await;
    let expected: Vec<String> = (0..120).map(|at| at.to_string()).collect();
    assert_eq!(world.others.bodies("b"), expected);
    for (_, transaction) in world.others.transactions("b") {
        let count = |name: &str| transaction[name].as_array().map_or(0, Vec::len);
        assert!(count("pdus") <= PDUS_MAX && count("edus") <= EDUS_MAX);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_repeated_as_it_was_with_growing_pauses() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    pass(1).await;
    world.others.down.lock().insert("b".to_owned());
    world.others.sent.lock().clear();
    world.say(&room, "one").await;
    pass(60).await;
    let tried = world.others.transactions("b");
    // After about 0, 1, 3, 7, 15, 31 seconds; each pause a fifth more or less.
    assert!((5..=7).contains(&tried.len()), "{} attempts", tried.len());
    assert!(tried.iter().all(|one| *one == tried[0]));
    let status = world.outbound.status();
    assert_eq!(status.len(), 1);
    assert_eq!(status[0].rooms_behind, 1);
    assert_eq!(status[0].last_error.as_deref(), Some("down"));
    assert_eq!(status[0].error_class.as_deref(), Some("unreachable"));
    assert_eq!(status[0].queued_pdus, 1, "the one that is on its way");
    assert!(status[0].pause_ms >= 800 && status[0].tried_ms >= status[0].failing_since_ms);
    let known = world
        .outbound
        .status_of(&status[0].server)
        .expect("it can be read");
    assert_eq!(known.map(|one| one.failures), Some(status[0].failures));
    let rooms = world
        .outbound
        .rooms_behind(&status[0].server)
        .expect("they can be read");
    assert_eq!(rooms.map(|rooms| rooms.len()), Some(1));
    // Much later it is heard of, and tried at once.
    pass(4 * 3600).await;
    world.others.down.lock().clear();
    world.others.sent.lock().clear();
    settle().await;
    assert!(world.others.transactions("b").is_empty());
    world
        .outbound
        .wake(ServerName::parse("b").expect("a name").as_ref());
    pass(1).await;
    assert_eq!(world.others.bodies("b"), ["one"]);
    assert!(
        world.outbound.status().is_empty(),
        "{:?}",
        world.outbound.status()
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_missed_much_gets_the_newest_event() {
    let world = World::new().await;
    let (room, other) = (
        world.room(&[("bob", "b")]).await,
        world.room(&[("bob", "b")]).await,
    );
    pass(1).await;
    world.others.down.lock().insert("b".to_owned());
    for at in 0..300 {
        world.say(&room, &at.to_string()).await;
        settle().await;
    }
    world.say(&other, "other").await;
    pass(100).await;
    world.others.down.lock().clear();
    world.others.sent.lock().clear();
    world
        .outbound
        .wake(ServerName::parse("b").expect("a name").as_ref());
    pass(5).await;
    let bodies = world.others.bodies("b");
    assert!(bodies.contains(&"299".to_owned()), "{bodies:?}");
    assert!(bodies.contains(&"other".to_owned()), "{bodies:?}");
    assert!(bodies.len() < 250, "{} events", bodies.len());
    assert!(
        world.outbound.status().is_empty(),
        "{:?}",
        world.outbound.status()
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_survives_a_crash() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b"), ("carol", "c")]).await;
    pass(1).await;
    world.others.down.lock().insert("b".to_owned());
    world.say(&room, "one").await;
    world.say(&room, "two").await;
    // The last that carol's server, which is away too, must hear of the room.
    world.others.down.lock().insert("c".to_owned());
    world.kick(&room, "carol", "c").await;
    pass(3).await;
    world
        .alice()
        .send_to_device(device_id!("A"), "m.x", "t1", to_device("bob", 1))
        .await
        .expect("it is sent");
    world.others.down.lock().clear();
    world.others.sent.lock().clear();
    let world = world.crash().await;
    pass(2).await;
    // The newest event leads b to the others; for c it is the last one that concerns it.
    for server in ["b", "c"] {
        let transactions = world.others.transactions(server);
        let pdus: Vec<_> = transactions
            .iter()
            .flat_map(|(_, one)| one["pdus"].as_array())
            .collect();
        let targets: Vec<_> = pdus.into_iter().flatten().map(|pdu| &pdu["state_key"]).collect();
        assert_eq!(targets, ["@carol:c"], "{server}");
    }
    assert_eq!(world.others.edus("b", "m.direct_to_device").len(), 1);
    assert!(
        world.outbound.status().is_empty(),
        "{:?}",
        world.outbound.status()
    );
    // Nothing of it comes again.
    world.others.sent.lock().clear();
    let world = world.crash().await;
    pass(2).await;
    assert!(world.others.transactions("b").is_empty());
}

#[tokio::test(start_paused = true)]
async fn messages_to_devices_come_before_later_events() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    pass(1).await;
    world.others.sent.lock().clear();
    world.others.down.lock().insert("b".to_owned());
    let alice = world.alice();
    for at in 0..150 {
        let (txn, messages) = (format!("t{at}"), to_device("bob", at));
        let sent = alice.send_to_device(device_id!("A"), "m.x", &txn, messages);
        sent.await.expect("it is sent");
        // A client that repeats itself changes nothing.
        let again = alice.send_to_device(device_id!("A"), "m.x", &txn, to_device("bob", at));
        again.await.expect("it is known");
    }
    world.say(&room, "after").await;
    pass(2).await;
    world.others.down.lock().clear();
    world.others.sent.lock().clear();
    pass(3600).await;
    let mut seen = 0;
    let mut ids = std::collections::BTreeSet::new();
    for (_, transaction) in world.others.transactions("b") {
        for edu in transaction["edus"].as_array().expect("EDUs") {
            if edu["edu_type"] == "m.direct_to_device" {
                assert_eq!(edu["content"]["messages"]["@bob:b"]["D"]["at"], seen);
                ids.insert(edu["content"]["message_id"].to_string());
                seen += 1;
            }
        }
        if !transaction["pdus"].as_array().expect("PDUs").is_empty() {
            assert_eq!(seen, 150);
        }
    }
    assert_eq!((seen, ids.len()), (150, 150));
    assert_eq!(world.others.bodies("b"), ["after"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_to_devices_that_comes_while_the_worker_ends_is_sent() {
    let world = World::new().await;
    let name = ServerName::parse("b").expect("a name");
    let destination = world.outbound.destination(&name).expect("a queue");
    // As the worker does at its end.
    destination.state.lock().is_running = true;
    let nothing = world.outbound.compose(&destination).expect("it can be read");
    assert!(nothing.is_none());
    let alice = world.alice();
    let sent = alice.send_to_device(device_id!("A"), "m.x", "t1", to_device("bob", 1));
    sent.await.expect("it is sent");
    pass(1).await;
    assert!(!world.outbound.rest(&destination), "there is something to send");
    let transaction = world.outbound.compose(&destination).expect("it can be read");
    assert_eq!(transaction.expect("a transaction").to_device.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn typing_receipts_and_presence_are_told() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    world.say(&room, "one").await;
    let alice = user("alice", OWN);
    room.set_typing(&alice, Some(20_000));
    let newest = room.tips().expect("tips")[0].id().to_owned();
    for kind in [
        hearth_rooms::ReceiptKind::Public,
        hearth_rooms::ReceiptKind::Private,
    ] {
        room.set_receipt(&alice, kind, Some("main"), &newest)
            .await
            .expect("a receipt");
    }
    let presence = world.users.presence();
    let _guard = presence.sync(&alice, device_id!("A"), hearth_users::PresenceState::Online);
    pass(1).await;
    let typing = world.others.edus("b", "m.typing");
    assert_eq!(
        typing,
        [json!({ "room_id": room.id(), "user_id": alice, "typing": true })]
    );
    let receipts = world.others.edus("b", "m.receipt");
    assert_eq!(receipts.len(), 1);
    let receipt = &receipts[0][room.id().as_str()]["m.read"][alice.as_str()];
    assert_eq!(receipt["event_ids"], json!([newest]));
    assert_eq!(receipt["data"]["thread_id"], "main");
    let presence = world.others.edus("b", "m.presence");
    assert_eq!(presence[0]["push"][0]["presence"], "online");
    room.set_typing(&alice, None);
    pass(1).await;
    assert_eq!(world.others.edus("b", "m.typing").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_server_that_shares_a_room_is_never_given_up() {
    let world = World::new().await;
    let _room = world.room(&[("bob", "b")]).await;
    pass(1).await;
    world.others.down.lock().extend(["b".to_owned(), "c".to_owned()]);
    let alice = world.alice();
    let sent = alice.send_to_device(device_id!("A"), "m.x", "t1", to_device("bob", 1));
    sent.await.expect("it is sent");
    let content = to_raw_value(&json!({ "at": 2 })).expect("JSON");
    let to_stranger = BTreeMap::from([(user("carl", "c"), BTreeMap::from([("D".to_owned(), content)]))]);
    let sent = alice.send_to_device(device_id!("A"), "m.x", "t2", to_stranger);
    sent.await.expect("it is sent");
    pass(12 * 3_600).await;
    world.others.down.lock().clear();
    world.others.sent.lock().clear();
    pass(2 * 3_600).await;
    assert_eq!(world.others.edus("b", "m.direct_to_device").len(), 1);
    assert!(
        world.others.edus("c", "m.direct_to_device").is_empty(),
        "it shares nothing with anybody here"
    );
}

#[tokio::test(start_paused = true)]
async fn a_join_tells_of_every_device_once() {
    let world = World::new().await;
    let carol = user("carol", OWN);
    let account = hearth_users::NewAccount::default();
    world.users.create(&carol, account).await.expect("an account");
    let login = hearth_users::Login {
        device_id: Some(ruma::owned_device_id!("A")),
        ..hearth_users::Login::default()
    };
    let handle = world.users.get(&carol).expect("a look").expect("carol");
    handle.login(login).await.expect("a device");
    let room = world.room(&[("bob", "b")]).await;
    world.join(&room, "carol", OWN).await;
    pass(1).await;
    let updates = world.others.edus("b", "m.device_list_update");
    assert_eq!(updates.len(), 1, "{updates:?}");
    assert_eq!(updates[0]["device_id"], "A");
    assert!(updates[0].get("keys").is_none(), "{updates:?}");
    // In another room with the same server there is nothing new, and no empty transaction says so.
    let other = world.room(&[("bob", "b")]).await;
    pass(1).await;
    world.others.sent.lock().clear();
    world.join(&other, "carol", OWN).await;
    pass(1).await;
    for (_, transaction) in world.others.transactions("b") {
        assert_eq!(transaction["edus"], json!([]));
        assert_ne!(transaction["pdus"], json!([]));
    }
}

/// A panic on the way to a server: nothing of what waits for it is lost, nor does it wait for the next start.
#[tokio::test(start_paused = true)]
async fn a_worker_that_panics_goes_on() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b"), ("carol", "c")]).await;
    pass(1).await;
    world.others.panicking.lock().insert("b".to_owned());
    world.say(&room, "one").await;
    pass(1).await;
    world.say(&room, "two").await;
    pass(200).await;
    assert_eq!(world.others.bodies("c"), ["one", "two"]);
    world.others.panicking.lock().clear();
    world.others.sent.lock().clear();
    pass(100).await;
    assert_eq!(world.others.bodies("b"), ["one", "two"]);
    assert!(world.outbound.status().is_empty());
}

/// One event that cannot be read is missed by the others; they get all that comes behind it.
#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_holds_up_no_other() {
    let world = World::new().await;
    let room = world.room(&[("bob", "b")]).await;
    pass(1).await;
    // Nobody reads the feed any more.
    world.shutdown.trigger();
    settle().await;
    world.say(&room, "bad").await;
    let short = room.tips().expect("the newest event")[0].short;
    world.say(&room, "one").await;
    world.say(&room, "two").await;
    let key = hearth_storage::schema::room_event::RoomEventKey {
        room: room.key(),
        short,
    };
    world.damage(hearth_storage::Family::RoomEvent, key.encode());
    drop(room);
    let world = world.crash().await;
    world.others.sent.lock().clear();
    pass(10).await;
    assert_eq!(world.others.bodies("b"), ["one", "two"]);
}

/// Nor does a room that cannot be read keep the servers of others from what is told of their users.
#[tokio::test(start_paused = true)]
async fn a_room_that_cannot_be_read_holds_up_no_other() {
    let world = World::new().await;
    let (bad, fine) = (
        world.room(&[("bob", "b")]).await,
        world.room(&[("carol", "c")]).await,
    );
    pass(1).await;
    world.damage_room(&bad);
    let (bad_id, fine_id) = (bad.id().to_owned(), fine.id().to_owned());
    drop((bad, fine));
    let world = world.crash().await;
    pass(1).await;
    let fine = world.rooms.get(&fine_id).expect("a look").expect("the room");
    assert!(world.rooms.get(&bad_id).is_err());
    world.others.sent.lock().clear();
    let alice = user("alice", OWN);
    {
        let mut noted = world.outbound.sources.noted.lock();
        noted.typing.insert(bad_id);
        noted.presence.insert(alice.clone());
    }
    fine.set_typing(&alice, Some(20_000));
    pass(1).await;
    assert_eq!(world.others.edus("c", "m.typing").len(), 1);
    assert_eq!(world.others.edus("c", "m.presence").len(), 1);
}
