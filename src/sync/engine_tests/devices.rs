//! Messages to devices, and whose devices changed.

use std::collections::BTreeMap;

use hearth_rooms::Preset;
use hearth_users::{KeyUpload, Login, User};
use ruma::device_id;
use serde_json::{Value, json, value::to_raw_value};

use super::*;
use crate::sliding::{Body, Request, RoomNews, ToDevice};

async fn log_in(user: &User) {
    let login = Login {
        device_id: Some("DEVICE".into()),
        ..Login::default()
    };
    user.login(login).await.unwrap();
}

async fn upload(user: &User, key: &str) {
    let keys = json!({
        "user_id": user.id(), "device_id": "DEVICE", "algorithms": [], "keys": { "ed25519:DEVICE": key },
        "signatures": {},
    });
    let upload = KeyUpload {
        device_keys: keys.as_object().cloned(),
        ..KeyUpload::default()
    };
    user.upload_keys(device_id!("DEVICE"), upload).await.unwrap();
}

async fn send(from: &User, to: &User, txn: &str, number: usize) {
    let content = to_raw_value(&json!({ "n": number })).unwrap();
    let messages = BTreeMap::from([(to.id().to_owned(), BTreeMap::from([("*".to_owned(), content)]))]);
    from.send_to_device(device_id!("DEVICE"), "m.test", txn, messages)
        .await
        .unwrap();
}

fn numbers(answer: &Value) -> Vec<u64> {
    let events = answer["to_device"]["events"].as_array().into_iter().flatten();
    events
        .map(|event| event["content"]["n"].as_u64().unwrap())
        .collect()
}

/// A connection that shows ten rooms and fetches the device's messages.
fn windows_with_messages(user: &User) -> Request {
    let mut windows = Request {
        device: Some(device_id!("DEVICE").to_owned()),
        ..super::sliding::windows(user, 9)
    };
    windows.extensions.to_device = Some(ToDevice::default());
    windows
}

/// The rooms of a connection's next answer, and how many messages came with it; the one after confirms them.
async fn next_page(world: &World, windows: &mut Request) -> (Vec<RoomNews>, usize) {
    let answer = world.slide(windows).await;
    let (messages, next) = answer.extensions.to_device.unwrap();
    windows.extensions.to_device.as_mut().unwrap().since = Some(next.to_string());
    (answer.rooms, messages.len())
}

#[tokio::test]
async fn messages_come_until_the_token_that_carried_them_comes_back() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    log_in(&bob).await;
    let first = world.sync(&request(&bob)).await;
    assert_eq!(
        first["device_one_time_keys_count"],
        json!({ "signed_curve25519": 0 })
    );
    assert_eq!(first["device_unused_fallback_key_types"], json!([]));
    let waits = request(&bob).since(&first).wait(20_000);
    let (second, ()) = tokio::join!(world.sync(&waits), send(&alice, &bob, "a", 1));
    assert_eq!(numbers(&second), [1]);
    assert_eq!(second["to_device"]["events"][0]["sender"], "@alice:example.org");
    assert_eq!(
        numbers(&world.sync(&request(&bob).since(&first)).await),
        [1],
        "asked again"
    );
    let next = request(&bob).since(&second);
    world.sync.acknowledge(&next).await;
    assert!(numbers(&world.sync(&next).await).is_empty());
    assert!(
        numbers(&world.sync(&request(&bob).since(&first)).await).is_empty(),
        "it is gone"
    );
}

#[tokio::test]
async fn many_messages_come_in_pages() {
    let world = World::new(1);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    log_in(&bob).await;
    let mut answer = world.sync(&request(&bob)).await;
    for number in 0..250 {
        send(&alice, &bob, &number.to_string(), number).await;
    }
    let mut got = Vec::new();
    for expected in [100, 100, 50, 0] {
        let next = request(&bob).since(&answer);
        world.sync.acknowledge(&next).await;
        answer = world.sync(&next).await;
        assert_eq!(numbers(&answer).len(), expected);
        got.extend(numbers(&answer));
    }
    assert_eq!(got, (0..250).collect::<Vec<u64>>());
}

/// While keys wait that did not fit, so do the events that need them; everything comes.
#[tokio::test]
async fn no_event_comes_before_its_key() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    log_in(&bob).await;
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let mut windows = windows_with_messages(&bob);
    next_page(&world, &mut windows).await;
    windows.extensions.to_device.as_mut().unwrap().limit = Some(70);
    let begin = world.sync(&request(&bob)).await;
    for number in 0..250 {
        send(&alice, &bob, &number.to_string(), number).await;
    }
    say(&room, &alice, "unlocked by the last key").await;

    let (mut got, mut answer) = (0, begin);
    while got < 250 {
        answer = world.sync(&request(&bob).since(&answer)).await;
        got += numbers(&answer).len();
        let told = answer["rooms"]["join"].get(room.id().as_str()).is_some();
        assert_eq!(told, got == 250, "after {got} keys");
    }
    let mut got = 0;
    while got < 250 {
        let (rooms, messages) = next_page(&world, &mut windows).await;
        got += messages;
        assert_eq!(rooms.len(), usize::from(got == 250), "after {got} keys");
    }
    assert!(world.slide(&mut windows).await.rooms.is_empty());
}

/// A first sync of a device that can decrypt: everything waits for the messages, which come in pages.
#[tokio::test]
async fn a_first_sync_tells_of_rooms_after_all_messages() {
    for shards in [1, 16] {
        let world = World::new(shards);
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        log_in(&bob).await;
        upload(&bob, "key").await;
        let (room, kicked) = (
            world.room(&alice, Preset::PublicChat).await,
            world.room(&alice, Preset::PublicChat).await,
        );
        join(&kicked, &bob).await;
        kicked.kick(alice.id(), bob.id(), None).await.unwrap();
        for number in 0..250 {
            send(&alice, &bob, &number.to_string(), number).await;
        }
        join(&room, &bob).await;
        say(&room, &alice, "unlocked by the last key").await;

        let first = world.sync(&request(&bob)).await;
        assert_eq!(world.sync(&request(&bob)).await["to_device"], first["to_device"]);
        let (mut got, mut answer) = (numbers(&first), first);
        while got.len() < 250 {
            assert!(
                answer.get("rooms").is_none() && answer.get("account_data").is_none(),
                "{answer}"
            );
            // It does not wait: there are messages.
            let next = request(&bob).since(&answer).wait(600_000);
            world.sync.acknowledge(&next).await;
            answer = world.sync(&next).await;
            got.extend(numbers(&answer));
        }
        assert_eq!(got, (0..250).collect::<Vec<u64>>());
        assert_eq!(
            bodies(&answer, "join", &room).last().map(String::as_str),
            Some("unlocked by the last key")
        );
        assert!(
            answer["rooms"]["leave"].get(kicked.id().as_str()).is_some(),
            "{answer}"
        );
        assert!(answer["account_data"]["events"][0].is_object());
        let next = request(&bob).since(&answer);
        world.sync.acknowledge(&next).await;
        let last = world.sync(&next).await;
        assert!(last.get("rooms").is_none() && numbers(&last).is_empty(), "{last}");
        assert!(
            numbers(&world.sync(&request(&bob)).await).is_empty(),
            "they are gone"
        );
    }
}

/// Messages to a device without keys unlock nothing: rooms are there at once, and the messages come beside them.
#[tokio::test]
async fn a_device_without_keys_waits_for_no_messages() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    log_in(&bob).await;
    for number in 0..250 {
        send(&alice, &bob, &number.to_string(), number).await;
    }
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let mut answer = world.sync(&request(&bob)).await;
    assert!(
        answer["rooms"]["join"].get(room.id().as_str()).is_some(),
        "{answer}"
    );
    let mut got = numbers(&answer);
    assert_eq!(got.len(), 100);
    for (expected, body) in [(200, "two"), (250, "three"), (250, "four")] {
        say(&room, &alice, body).await;
        let next = request(&bob).since(&answer).wait(600_000);
        world.sync.acknowledge(&next).await;
        answer = world.sync(&next).await;
        got.extend(numbers(&answer));
        assert_eq!(got.len(), expected);
        assert_eq!(bodies(&answer, "join", &room), [body]);
    }
    assert_eq!(got, (0..250).collect::<Vec<u64>>());
}

/// The same by windows: a connection's first answers have the messages, and rooms that are new to the client.
#[tokio::test]
async fn windows_open_after_all_messages() {
    for (with_keys, first_rooms) in [(true, 0), (false, 1)] {
        let world = World::new(16);
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        log_in(&bob).await;
        if with_keys {
            upload(&bob, "key").await;
        }
        let room = world.room(&alice, Preset::PublicChat).await;
        join(&room, &bob).await;
        for number in 0..250 {
            send(&alice, &bob, &number.to_string(), number).await;
        }
        say(&room, &alice, "unlocked by the last key").await;
        let mut windows = windows_with_messages(&bob);
        let (mut got, mut shown) = (0, Vec::new());
        for _ in 0..4 {
            let (rooms, messages) = next_page(&world, &mut windows).await;
            got += messages;
            for news in &rooms {
                let Body::Full(full) = &news.body else {
                    panic!("the room is joined")
                };
                assert_eq!(
                    full.live, 0,
                    "nothing of it is younger than the first answer's room"
                );
                assert!(news.initial);
            }
            shown.push(rooms.len());
        }
        assert_eq!(got, 250);
        assert_eq!(
            shown,
            [first_rooms, 0, 1 - first_rooms, 0],
            "{with_keys}: rooms come with the last page"
        );
    }
}

#[tokio::test]
async fn changes_of_devices_reach_those_who_share_a_room() {
    for shards in [1, 16] {
        let world = World::new(shards);
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let carol = world.user("carol").await;
        for user in [&alice, &bob, &carol] {
            log_in(user).await;
        }
        let room = world.room(&alice, Preset::PublicChat).await;
        let other = world.room(&alice, Preset::PublicChat).await;
        let zero = world.sync(&request(&alice)).await;
        join(&room, &bob).await;
        let one = world.sync(&request(&alice).since(&zero)).await;
        assert_eq!(
            one["device_lists"],
            json!({ "changed": ["@bob:example.org"], "left": [] })
        );

        let waits = request(&alice).since(&one).wait(20_000);
        let (two, ()) = tokio::join!(world.sync(&waits), upload(&bob, "first"));
        assert_eq!(two["device_lists"]["changed"], json!(["@bob:example.org"]));
        upload(&carol, "unseen").await;
        let three = world.sync(&request(&alice).since(&two)).await;
        assert!(three.get("device_lists").is_none(), "{three}");
        upload(&alice, "own").await;
        let four = world.sync(&request(&alice).since(&three)).await;
        assert_eq!(four["device_lists"]["changed"], json!(["@alice:example.org"]));

        join(&other, &bob).await;
        room.leave(bob.id(), None).await.unwrap();
        let five = world.sync(&request(&alice).since(&four)).await;
        assert_eq!(five["device_lists"]["left"], json!([]), "another room is shared");
        other.leave(bob.id(), None).await.unwrap();
        let six = world.sync(&request(&alice).since(&five)).await;
        assert_eq!(
            six["device_lists"],
            json!({ "changed": [], "left": ["@bob:example.org"] })
        );
        let until = SyncToken::parse(four["next_batch"].as_str().unwrap()).unwrap();
        let lists = world
            .sync
            .device_changes(&request(&alice).since(&one), &until)
            .await
            .unwrap();
        assert!(
            lists.changed.contains(bob.id()) && lists.left.is_empty(),
            "{lists:?}"
        );

        join(&room, &carol).await;
        let begin = world.sync(&request(&carol)).await;
        room.leave(carol.id(), None).await.unwrap();
        let gone = world.sync(&request(&carol).since(&begin)).await;
        assert_eq!(gone["device_lists"]["left"], json!(["@alice:example.org"]));
    }
}

/// Who is invited is sent keys from then on, and may have other devices than when a client looked last.
#[tokio::test]
async fn who_is_invited_has_changed() {
    for shards in [1, 16] {
        let world = World::new(shards);
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        for user in [&alice, &bob] {
            log_in(user).await;
        }
        let room = world.room(&alice, Preset::PublicChat).await;
        let zero = world.sync(&request(&alice)).await;
        let invite = async || {
            let invited = room.invite(alice.id(), bob.id(), Map::new(), None).await;
            invited.unwrap()
        };
        invite().await;
        let one = world.sync(&request(&alice).since(&zero)).await;
        assert_eq!(
            one["device_lists"],
            json!({ "changed": ["@bob:example.org"], "left": [] })
        );
        room.leave(bob.id(), None).await.unwrap();
        upload(&bob, "new").await;
        let two = world.sync(&request(&alice).since(&one)).await;
        assert!(two.get("device_lists").is_none(), "{two}");
        invite().await;
        let three = world.sync(&request(&alice).since(&two)).await;
        assert_eq!(three["device_lists"]["changed"], json!(["@bob:example.org"]));
        // Thrown out and invited again between two syncs.
        join(&room, &bob).await;
        let four = world.sync(&request(&alice).since(&three)).await;
        room.leave(bob.id(), None).await.unwrap();
        invite().await;
        let five = world.sync(&request(&alice).since(&four)).await;
        assert_eq!(
            five["device_lists"],
            json!({ "changed": ["@bob:example.org"], "left": [] })
        );
    }
}

/// A room that was left while messages to the device wait: what was said before may need their keys.
#[tokio::test]
async fn no_event_of_a_left_room_comes_before_its_key() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    log_in(&bob).await;
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let mut windows = windows_with_messages(&bob);
    windows
        .lists
        .values_mut()
        .for_each(|list| list.config.timeline_limit = 5);
    next_page(&world, &mut windows).await;
    for number in 0..250 {
        send(&alice, &bob, &number.to_string(), number).await;
    }
    say(&room, &alice, "unlocked by the last key").await;
    room.kick(alice.id(), bob.id(), None).await.unwrap();
    let mut got = 0;
    while got < 250 {
        let (rooms, messages) = next_page(&world, &mut windows).await;
        got += messages;
        assert_eq!(rooms.len(), usize::from(got == 250), "after {got} keys");
        for news in &rooms {
            let Body::Full(full) = &news.body else {
                panic!("the user was in the room")
            };
            assert_eq!(full.timeline.events.len(), 2);
        }
    }
    assert!(world.slide(&mut windows).await.rooms.is_empty());
}

/// Who was out of the room between two syncs may have other devices than before: nobody told of them meanwhile.
#[tokio::test]
async fn who_was_away_and_came_back_has_changed() {
    for shards in [1, 16] {
        let world = World::new(shards);
        let (alice, bob, carol) = (
            world.user("alice").await,
            world.user("bob").await,
            world.user("carol").await,
        );
        for user in [&alice, &bob, &carol] {
            log_in(user).await;
        }
        let room = world.room(&alice, Preset::PublicChat).await;
        join(&room, &bob).await;
        room.invite(alice.id(), carol.id(), Map::new(), None)
            .await
            .unwrap();
        let zero = world.sync(&request(&alice)).await;
        room.leave(bob.id(), None).await.unwrap();
        room.leave(carol.id(), None).await.unwrap();
        upload(&bob, "new").await;
        upload(&carol, "new").await;
        // So late that the change is no news to the room when it is joined.
        world.clock.advance(600_000);
        join(&room, &bob).await;
        room.invite(alice.id(), carol.id(), Map::new(), None)
            .await
            .unwrap();
        let one = world.sync(&request(&alice).since(&zero)).await;
        assert_eq!(
            one["device_lists"],
            json!({ "changed": ["@bob:example.org", "@carol:example.org"], "left": [] })
        );
        // A new name is no other device.
        let name = |name: &str| json!({ "membership": "join", "displayname": name });
        for text in ["Bob", "Bobby"] {
            set(&room, &bob, "m.room.member", bob.id().as_str(), name(text)).await;
        }
        let two = world.sync(&request(&alice).since(&one)).await;
        assert!(two.get("device_lists").is_none(), "{two}");
    }
}

/// Who has left a room that the user was in is out of sight, also where the user has left too, or has come back.
#[tokio::test]
async fn who_left_before_the_user_did_is_out_of_sight() {
    for shards in [1, 16] {
        let world = World::new(shards);
        let (alice, bob, carol) = (
            world.user("alice").await,
            world.user("bob").await,
            world.user("carol").await,
        );
        let dave = world.user("dave").await;
        for user in [&alice, &bob, &carol, &dave] {
            log_in(user).await;
        }
        let (left, again) = (
            world.room(&carol, Preset::PublicChat).await,
            world.room(&alice, Preset::PublicChat).await,
        );
        for user in [&alice, &bob] {
            join(&left, user).await;
        }
        join(&again, &dave).await;
        let zero = world.sync(&request(&alice)).await;
        left.leave(bob.id(), None).await.unwrap();
        left.leave(alice.id(), None).await.unwrap();
        left.leave(carol.id(), None).await.unwrap();
        again.leave(alice.id(), None).await.unwrap();
        again.leave(dave.id(), None).await.unwrap();
        join(&again, &alice).await;
        let one = world.sync(&request(&alice).since(&zero)).await;
        assert_eq!(
            one["device_lists"]["left"],
            json!(["@bob:example.org", "@carol:example.org", "@dave:example.org"])
        );
    }
}
