//! What single syncs show.

use hearth_rooms::{Preset, ReceiptKind};
use hearth_storage::{Batch, Engine, Family, Reader};
use serde_json::{Map, Value, json};

use super::*;

#[tokio::test]
async fn an_initial_sync_shows_everything_once() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    for number in 0..3 {
        say(&room, &bob, &format!("hello {number}")).await;
    }
    let first = world
        .sync(&request(&alice).filter(json!({ "room": { "timeline": { "limit": 2 } } })))
        .await;
    assert_eq!(bodies(&first, "join", &room), ["hello 1", "hello 2"]);
    let news = &first["rooms"]["join"][room.id().as_str()];
    assert_eq!(news["timeline"]["limited"], true);
    assert_eq!(news["summary"]["m.joined_member_count"], 2);
    assert_eq!(news["summary"]["m.heroes"], json!([bob.id()]));
    assert_eq!(
        news["unread_notifications"],
        json!({ "highlight_count": 0, "notification_count": 3 })
    );
    let members = state(&first, "join", &room, "state");
    assert!(
        members.contains(&format!("m.room.member|{}", bob.id()))
            && members.contains(&"m.room.create|".to_owned())
    );
    let rules = first["account_data"]["events"].as_array().unwrap();
    assert!(
        rules
            .iter()
            .any(|event| event["type"] == "m.push_rules" && event["content"]["global"].is_object())
    );
    let second = world.sync(&request(&alice).since(&first)).await;
    assert_eq!(
        second.as_object().unwrap().keys().collect::<Vec<_>>(),
        [
            "device_one_time_keys_count",
            "device_unused_fallback_key_types",
            "next_batch"
        ],
        "{second}"
    );
}

#[tokio::test]
async fn the_summary_does_not_hang_on_what_the_timeline_shows() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    let name = set(&room, &alice, "m.room.name", "", json!({ "name": "Talk" })).await;
    let filter = json!({ "room": { "timeline": { "limit": 1, "types": ["m.room.message"] } } });
    let ask = || request(&alice).filter(filter.clone());
    let first = world.sync(&ask()).await;
    let summary = |answer: &Value| answer["rooms"]["join"][room.id().as_str()]["summary"].clone();
    assert_eq!(summary(&first)["m.heroes"], Value::Null);
    join(&room, &bob).await;
    say(&room, &bob, "hello").await;
    let second = world.sync(&ask().since(&first)).await;
    assert_eq!(summary(&second)["m.joined_member_count"], 2);
    room.send(redaction(&alice, &name), None).await.unwrap();
    say(&room, &bob, "who are we?").await;
    let third = world.sync(&ask().since(&second)).await;
    assert_eq!(bodies(&third, "join", &room), ["who are we?"]);
    assert_eq!(summary(&third)["m.heroes"], json!([bob.id()]));
    say(&room, &bob, "nothing else").await;
    let fourth = world.sync(&ask().since(&third)).await;
    assert_eq!(summary(&fourth), Value::Null);
}

#[tokio::test]
async fn tokens_survive_a_restart() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let first = world.sync(&request(&alice)).await;
    say(&room, &bob, "before").await;
    let id = room.id().to_owned();
    drop((room, bob));
    let world = world.restarted();
    let alice = world.users.get(&super::id("alice")).unwrap().unwrap();
    let bob = world.users.get(&super::id("bob")).unwrap().unwrap();
    let room = world.rooms.require(&id).unwrap();
    let second = world.sync(&request(&alice).since(&first)).await;
    assert_eq!(bodies(&second, "join", &room), ["before"]);
    say(&room, &bob, "after").await;
    let third = world.sync(&request(&alice).since(&second)).await;
    assert_eq!(bodies(&third, "join", &room), ["after"]);
}

#[tokio::test]
async fn a_gap_has_its_state_before_the_timeline() {
    let world = World::new(4);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let first = world.sync(&request(&alice)).await;
    set(&room, &alice, "m.room.name", "", json!({ "name": "old" })).await;
    for number in 0..5 {
        say(&room, &bob, &format!("{number}")).await;
    }
    set(&room, &alice, "m.room.topic", "", json!({ "topic": "new" })).await;
    let narrow = json!({ "room": { "timeline": { "limit": 2 } } });
    let plain = world
        .sync(&request(&alice).since(&first).filter(narrow.clone()))
        .await;
    assert_eq!(bodies(&plain, "join", &room), ["4", "m.room.topic"]);
    assert_eq!(
        plain["rooms"]["join"][room.id().as_str()]["timeline"]["limited"],
        true
    );
    assert_eq!(state(&plain, "join", &room, "state"), ["m.room.name|"]);
    let mut after = request(&alice).since(&first).filter(narrow);
    after.state = StateSide::After;
    let after = world.sync(&after).await;
    assert_eq!(
        state(&after, "join", &room, "state_after"),
        ["m.room.name|", "m.room.topic|"]
    );
    assert!(after["rooms"]["join"][room.id().as_str()].get("state").is_none());
    // State that the timeline's filter hides is told of beside it.
    let hidden = json!({ "room": { "timeline": { "types": ["m.room.message"] } } });
    let hidden = world.sync(&request(&alice).since(&first).filter(hidden)).await;
    assert_eq!(bodies(&hidden, "join", &room), ["0", "1", "2", "3", "4"]);
    assert_eq!(
        state(&hidden, "join", &room, "state"),
        ["m.room.name|", "m.room.topic|"]
    );
    // The gap can be filled from prev_batch.
    let token = plain["rooms"]["join"][room.id().as_str()]["timeline"]["prev_batch"]
        .as_str()
        .unwrap();
    let from = crate::BatchToken::parse(token).unwrap().place_in(&room).unwrap();
    let to = crate::BatchToken::parse(first["next_batch"].as_str().unwrap())
        .unwrap()
        .place_in(&room)
        .unwrap();
    let mut viewer = room.viewer(alice.id()).unwrap();
    let page = room
        .page(from, Some(to), true, 100, &mut viewer, &|_| true)
        .unwrap();
    assert_eq!(page.events.len(), 5);
}

#[tokio::test]
async fn typing_and_receipts() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let message = say(&room, &alice, "read me").await;
    let first = world.sync(&request(&alice)).await;
    room.set_typing(bob.id(), Some(30_000));
    let ephemeral =
        |answer: &Value| answer["rooms"]["join"][room.id().as_str()]["ephemeral"]["events"].clone();
    let second = world.sync(&request(&alice).since(&first)).await;
    assert_eq!(
        ephemeral(&second),
        json!([{ "type": "m.typing", "content": { "user_ids": [bob.id()] } }])
    );
    room.set_typing(bob.id(), None);
    let third = world.sync(&request(&alice).since(&second).wait(1000)).await;
    assert_eq!(
        ephemeral(&third),
        json!([{ "type": "m.typing", "content": { "user_ids": [] } }])
    );
    room.set_receipt(bob.id(), ReceiptKind::Public, Some("main"), &message)
        .await
        .unwrap();
    room.set_receipt(bob.id(), ReceiptKind::Private, None, &message)
        .await
        .unwrap();
    let fourth = world.sync(&request(&alice).since(&third)).await;
    let ts = ephemeral(&fourth)[0]["content"][message.as_str()]["m.read"][bob.id().as_str()]["ts"].clone();
    let expected =
        json!({ message.as_str(): { "m.read": { bob.id().as_str(): { "ts": ts, "thread_id": "main" } } } });
    assert_eq!(
        ephemeral(&fourth),
        json!([{ "type": "m.receipt", "content": expected }])
    );
    let own = world.sync(&request(&bob)).await;
    assert!(ephemeral(&own)[0]["content"][message.as_str()]["m.read.private"].is_object());
    let none = json!({ "room": { "ephemeral": { "not_types": ["m.receipt", "m.typing"] } } });
    let filtered = world.sync(&request(&alice).since(&third).filter(none)).await;
    assert!(filtered.get("rooms").is_none(), "{filtered}");
}

#[tokio::test]
async fn account_data_ignored_users_and_fields() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let first = world.sync(&request(&alice)).await;
    let ignored = json!({ "ignored_users": { bob.id().as_str(): {} } });
    let ignored = serde_json::value::to_raw_value(&ignored).unwrap();
    alice
        .set_account_data(None, "m.ignored_user_list", &ignored)
        .await
        .unwrap();
    alice.set_tag(room.id(), "m.favourite", Map::new()).await.unwrap();
    say(&room, &bob, "unheard").await;
    say(&room, &alice, "heard").await;
    let second = world.sync(&request(&alice).since(&first)).await;
    assert_eq!(second["account_data"]["events"][0]["type"], "m.ignored_user_list");
    let news = &second["rooms"]["join"][room.id().as_str()];
    assert_eq!(news["account_data"]["events"][0]["type"], "m.tag");
    assert_eq!(bodies(&second, "join", &room), ["heard"]);
    let fields = json!({ "event_fields": ["content.body"] });
    let cut = world.sync(&request(&alice).since(&first).filter(fields)).await;
    let event = &cut["rooms"]["join"][room.id().as_str()]["timeline"]["events"][0];
    assert_eq!(event["content"], json!({ "body": "heard" }));
    assert!(event.get("sender").is_none());
    let federation = json!({ "event_format": "federation" });
    let raw = world
        .sync(&request(&alice).since(&first).filter(federation))
        .await;
    assert!(raw["rooms"]["join"][room.id().as_str()]["timeline"]["events"][0]["auth_events"].is_array());
}

#[tokio::test]
async fn full_state_comes_again_when_asked_for() {
    let world = World::new(16);
    let alice = world.user("alice").await;
    let room = world.room(&alice, Preset::PublicChat).await;
    let first = world.sync(&request(&alice)).await;
    let mut full = request(&alice).since(&first).wait(60_000);
    full.full_state = true;
    let answer = world.sync(&full).await;
    assert!(state(&answer, "join", &room, "state").contains(&"m.room.create|".to_owned()));
    assert!(bodies(&answer, "join", &room).is_empty());
}

#[tokio::test]
async fn older_renderings() {
    let world = World::new(4);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    say(&room, &bob, "old").await;
    let whole = request(&alice);
    let mut view = world.sync.sync(&whole).await.unwrap();
    let (since, start) = (view.next.clone(), view.next_batch.clone());
    let initial = crate::legacy::initial(&world.rooms, &whole, &mut view).unwrap();
    assert_eq!(initial["rooms"][0]["membership"], "join");
    say(&room, &bob, "new").await;
    let mut next = request(&alice);
    next.since = Some(since);
    let mut view = world.sync.sync(&next).await.unwrap();
    let events = crate::legacy::events(&next, &start, &mut view).unwrap();
    assert_eq!(events["chunk"][0]["content"]["body"], "new");
    assert_eq!(events["chunk"][0]["room_id"], room.id().as_str());
    let snapshot = world.sync.room_snapshot(&alice, None, &room, 2).unwrap();
    assert_eq!(snapshot["messages"]["chunk"].as_array().unwrap().len(), 2);
    let carol = world.user("carol").await;
    assert!(world.sync.room_snapshot(&carol, None, &room, 2).is_err());
}

/// A filter that leaves nearly everything out makes no sync read the whole room: what is older comes by pages.
#[tokio::test]
async fn a_timeline_is_looked_for_within_bounds() {
    let world = World::new(1);
    let alice = world.user("alice").await;
    let room = world.room(&alice, Preset::PublicChat).await;
    set(&room, &alice, "org.example.rare", "", json!({})).await;
    for number in 0..600 {
        say(&room, &alice, &number.to_string()).await;
    }
    let filter = json!({ "room": { "timeline": { "types": ["org.example.rare"] } } });
    let answer = world.sync(&request(&alice).filter(filter)).await;
    let timeline = &answer["rooms"]["join"][room.id().as_str()]["timeline"];
    assert_eq!(timeline["events"], json!([]));
    assert_eq!(timeline["limited"], true);
    let from = crate::BatchToken::parse(timeline["prev_batch"].as_str().unwrap()).unwrap();
    let mut viewer = room.viewer(alice.id()).unwrap();
    let keep = |event: &hearth_rooms::Event| event.pdu.kind() == "org.example.rare";
    let from = from.place_in(&room).unwrap();
    let page = room.page(from, None, true, 5, &mut viewer, &keep).unwrap();
    assert_eq!(page.events.len(), 1);
}

/// Who does not want all members costs nobody the reading of them: large rooms have a hundred thousand.
#[tokio::test]
async fn members_that_are_not_wanted_are_not_read() {
    let world = World::new(1);
    let (alice, quiet) = (world.user("alice").await, world.user("quiet").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    set(&room, &alice, "m.room.name", "", json!({ "name": "A room" })).await;
    join(&room, &quiet).await;
    // More than is read at once for a timeline.
    for number in 0..100 {
        set(
            &room,
            &alice,
            "org.example.number",
            "",
            json!({ "number": number }),
        )
        .await;
    }
    // What nobody can read any more.
    let mut damage = Batch::default();
    let all = world
        .engine
        .scan(Family::RoomEvent, &[], &[0xFF; 8], false, &mut |key, value| {
            if String::from_utf8_lossy(value).contains(r#""state_key":"@quiet:"#) {
                damage.put(Family::RoomEvent, key, [0xFE]);
            }
            true
        });
    all.unwrap();
    assert!(!damage.is_empty());
    world.engine.write(&damage, true).unwrap();
    let world = world.restarted();
    let alice = world.users.get(alice.id()).unwrap().unwrap();
    let request = || request(&alice);
    for filter in [
        json!({ "lazy_load_members": true }),
        json!({ "not_types": ["m.room.member"] }),
    ] {
        for limit in [1, 3] {
            let filter = json!({ "room": { "state": filter, "timeline": { "limit": limit } } });
            let answer = world.sync(&request().filter(filter.clone())).await;
            let seen = state(&answer, "join", &room, "state");
            assert!(seen.contains(&"m.room.create|".to_owned()), "{filter}: {seen:?}");
            assert!(
                seen.contains(&"org.example.number|".to_owned()),
                "{filter}: {seen:?}"
            );
            assert!(!seen.contains(&"m.room.member|@quiet:example.org".to_owned()));
            let mut after = request().filter(filter);
            after.state = StateSide::After;
            let answer = world.sync(&after).await;
            assert!(state(&answer, "join", &room, "state_after").contains(&"m.room.create|".to_owned()));
        }
    }
    assert!(
        world.sync.sync(&request()).await.is_err(),
        "the member cannot be read"
    );
}

/// Beside the state after a timeline, the timeline tells of no state: who joined within it stands there, too.
#[tokio::test]
async fn the_state_after_a_timeline_has_the_members_that_it_shows() {
    let world = World::new(1);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    say(&room, &bob, "here").await;
    let filter = json!({ "room": { "state": { "lazy_load_members": true } } });
    let mut after = request(&alice).filter(filter);
    after.state = StateSide::After;
    let answer = world.sync(&after).await;
    let seen = state(&answer, "join", &room, "state_after");
    for member in ["alice", "bob"] {
        assert!(
            seen.contains(&format!("m.room.member|@{member}:example.org")),
            "{seen:?}"
        );
    }
}

/// Who asks says how many events the answer may have: with more of them it is not made.
#[tokio::test]
async fn an_answer_has_no_more_events_than_it_may() {
    let world = World::new(1);
    let alice = world.user("alice").await;
    let room = world.room(&alice, Preset::PublicChat).await;
    let first = world.sync(&request(&alice)).await;
    for number in 0..30 {
        set(
            &room,
            &alice,
            "org.example.number",
            &number.to_string(),
            json!({}),
        )
        .await;
    }
    let last = json!({ "room": { "timeline": { "limit": 1 } } });
    for whole in [request(&alice), request(&alice).since(&first)] {
        let is_large = async |events_max: usize| {
            let asked = SyncRequest {
                events_max,
                ..whole.clone().filter(last.clone())
            };
            matches!(world.sync.sync(&asked).await, Err(crate::Error::Large))
        };
        assert!(is_large(20).await && !is_large(60).await);
    }
}
