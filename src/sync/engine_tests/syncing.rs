//! What single syncs show.

use std::time::Duration;

use hearth_rooms::{CreateRoom, Preset, ReceiptKind};
use hearth_users::PresenceState;
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
async fn a_waiting_sync_is_woken_by_a_message_and_by_nothing_else() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    let other = world.room(&bob, Preset::PublicChat).await;
    join(&room, &bob).await;
    let first = world.sync(&request(&alice)).await;
    let waits = request(&alice).since(&first).wait(20_000);
    let waiting = world.sync(&waits);
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(30), &mut waiting).await;
    assert!(early.is_err(), "it waits");
    say(&other, &bob, "elsewhere").await;
    let early = tokio::time::timeout(Duration::from_millis(30), &mut waiting).await;
    assert!(early.is_err(), "other rooms do not concern it");
    say(&room, &bob, "here").await;
    let answer = tokio::time::timeout(Duration::from_secs(5), &mut waiting)
        .await
        .unwrap();
    assert_eq!(bodies(&answer, "join", &room), ["here"]);
    let began = std::time::Instant::now();
    let late = world.sync(&request(&alice).since(&answer).wait(60)).await;
    assert!(began.elapsed() >= Duration::from_millis(55));
    assert!(late.get("rooms").is_none());
}

#[tokio::test]
async fn a_shutdown_ends_waiting() {
    let world = World::new(1);
    let alice = world.user("alice").await;
    let first = world.sync(&request(&alice)).await;
    let waits = request(&alice).since(&first).wait(60_000);
    let waiting = world.sync(&waits);
    tokio::pin!(waiting);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), &mut waiting)
            .await
            .is_err()
    );
    world.shutdown.trigger();
    tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .unwrap();
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
async fn invitations_joins_and_leaves() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut spec = CreateRoom::new(alice.id().to_owned(), Preset::PrivateChat);
    spec.name = Some("the room".to_owned());
    let room = world.rooms.create(spec).await.unwrap();
    let first = world.sync(&request(&bob)).await;
    assert!(first.get("rooms").is_none());
    room.invite(alice.id(), bob.id(), Map::new(), None).await.unwrap();
    let invited = world.sync(&request(&bob).since(&first)).await;
    let events = invited["rooms"]["invite"][room.id().as_str()]["invite_state"]["events"]
        .as_array()
        .unwrap()
        .clone();
    let has = |kind: &str, key: &str| {
        events
            .iter()
            .any(|event| event["type"] == kind && event["state_key"] == key)
    };
    assert!(
        has("m.room.create", "") && has("m.room.name", "") && has("m.room.member", bob.id().as_str()),
        "{events:?}"
    );
    assert!(has("m.room.member", alice.id().as_str()));
    assert!(
        world.sync(&request(&bob)).await["rooms"]["invite"].is_object(),
        "a fresh client sees it too"
    );
    let nothing = world.sync(&request(&bob).since(&invited)).await;
    assert!(nothing.get("rooms").is_none());

    say(&room, &alice, "welcome").await;
    join(&room, &bob).await;
    let joined = world.sync(&request(&bob).since(&invited)).await;
    assert!(joined["rooms"].get("invite").is_none());
    assert!(
        state(&joined, "join", &room, "state")
            .iter()
            .chain(&bodies(&joined, "join", &room))
            .any(|word| word.contains("m.room.create"))
    );
    say(&room, &alice, "good bye").await;
    room.leave(bob.id(), None).await.unwrap();
    say(&room, &alice, "behind his back").await;
    let left = world.sync(&request(&bob).since(&joined)).await;
    assert_eq!(bodies(&left, "leave", &room), ["good bye", "m.room.member"]);
    assert!(left["rooms"].get("join").is_none());
    let nothing = world.sync(&request(&bob).since(&left)).await;
    assert!(nothing.get("rooms").is_none(), "told once: {nothing}");
    let fresh = world.sync(&request(&bob)).await;
    assert!(fresh.get("rooms").is_none());
    let with_left = world
        .sync(&request(&bob).filter(json!({ "room": { "include_leave": true } })))
        .await;
    assert_eq!(
        bodies(&with_left, "leave", &room).last().unwrap(),
        "m.room.member"
    );
    assert!(!bodies(&with_left, "leave", &room).contains(&"behind his back".to_owned()));

    room.invite(alice.id(), bob.id(), Map::new(), None).await.unwrap();
    let invited = world.sync(&request(&bob).since(&left)).await;
    room.leave(bob.id(), None).await.unwrap();
    let declined = world.sync(&request(&bob).since(&invited)).await;
    assert_eq!(bodies(&declined, "leave", &room), ["m.room.member"]);
    assert!(
        state(&declined, "leave", &room, "state").is_empty(),
        "who was only invited sees no state"
    );
}

#[tokio::test]
async fn who_was_put_out_is_told_of_it_in_a_first_sync() {
    let world = World::new(2);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    say(&room, &alice, "out with you").await;
    room.kick(alice.id(), bob.id(), None).await.unwrap();
    say(&room, &alice, "gone at last").await;
    let told = ["out with you", "m.room.member"];
    let fresh = world.sync(&request(&bob)).await;
    assert!(bodies(&fresh, "leave", &room).ends_with(&told.map(str::to_owned)));
    assert!(fresh.get("device_lists").is_none(), "{fresh}");

    room.ban(alice.id(), bob.id(), None).await.unwrap();
    let fresh = world.sync(&request(&bob)).await;
    assert_eq!(bodies(&fresh, "leave", &room).last().unwrap(), "m.room.member");

    bob.forget_room(room.id()).await.unwrap();
    let fresh = world.sync(&request(&bob)).await;
    assert!(fresh.get("rooms").is_none());
}

#[tokio::test]
async fn lazily_loaded_members() {
    let world = World::new(2);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    set(&room, &alice, "m.room.name", "", json!({ "name": "named" })).await;
    join(&room, &bob).await;
    for number in 0..5 {
        let carol = world.user(&format!("carol{number}")).await;
        join(&room, &carol).await;
    }
    say(&room, &bob, "one").await;
    let lazy = json!({ "room": { "state": { "lazy_load_members": true }, "timeline": { "limit": 1 } } });
    let members = |answer: &Value| {
        let all = state(answer, "join", &room, "state");
        all.into_iter()
            .filter(|word| word.starts_with("m.room.member"))
            .collect::<Vec<_>>()
    };
    let [own, his] = [&alice, &bob].map(|user| format!("m.room.member|{}", user.id()));
    let first = world.sync(&request(&alice).filter(lazy.clone())).await;
    assert_eq!(members(&first), [own.clone(), his.clone()]);
    say(&room, &bob, "two").await;
    let second = world
        .sync(&request(&alice).filter(lazy.clone()).since(&first))
        .await;
    assert_eq!(members(&second), Vec::<String>::new(), "the client knows him");
    say(&room, &bob, "three").await;
    let again = world
        .sync(&request(&alice).filter(lazy.clone()).since(&first))
        .await;
    assert_eq!(
        members(&again),
        std::slice::from_ref(&his),
        "the client may never have got the first answer"
    );
    let mut redundant = lazy;
    redundant["room"]["state"]["include_redundant_members"] = json!(true);
    say(&room, &bob, "four").await;
    let fourth = world.sync(&request(&alice).filter(redundant).since(&again)).await;
    assert_eq!(members(&fourth), [his]);
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
async fn presence_goes_to_those_who_share_a_room() {
    let world = World::new(4);
    let (alice, bob, carol) = (
        world.user("alice").await,
        world.user("bob").await,
        world.user("carol").await,
    );
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let first = world.sync(&request(&alice)).await;
    let device = ruma::device_id!("D");
    carol
        .set_presence(device, PresenceState::Online, None)
        .await
        .unwrap();
    bob.set_presence(device, PresenceState::Busy, Some(Some("working".to_owned())))
        .await
        .unwrap();
    let second = world.sync(&request(&alice).since(&first).wait(1000)).await;
    let events = second["presence"]["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{second}");
    assert_eq!(events[0]["sender"], bob.id().as_str());
    assert_eq!(events[0]["content"]["presence"], "busy");
    assert_eq!(events[0]["content"]["status_msg"], "working");
    join(&room, &carol).await;
    let third = world.sync(&request(&alice).since(&second)).await;
    assert_eq!(
        third["presence"]["events"][0]["sender"],
        carol.id().as_str(),
        "she came in: {third}"
    );
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
    assert_eq!(
        event["content"],
        json!({ "msgtype": null, "body": "heard" })
            .as_object()
            .map(|_| json!({ "body": "heard" }))
            .unwrap()
    );
    assert!(event.get("sender").is_none());
    let federation = json!({ "event_format": "federation" });
    let raw = world
        .sync(&request(&alice).since(&first).filter(federation))
        .await;
    assert!(raw["rooms"]["join"][room.id().as_str()]["timeline"]["events"][0]["auth_events"].is_array());
}

#[tokio::test]
async fn rooms_outside_the_filter_do_not_wake() {
    let world = World::new(16);
    let alice = world.user("alice").await;
    let (one, two) = (
        world.room(&alice, Preset::PublicChat).await,
        world.room(&alice, Preset::PublicChat).await,
    );
    let only = json!({ "room": { "rooms": [one.id()] } });
    let first = world.sync(&request(&alice).filter(only.clone())).await;
    assert_eq!(first["rooms"]["join"].as_object().unwrap().len(), 1);
    say(&two, &alice, "not wanted").await;
    let second = world.sync(&request(&alice).since(&first).filter(only)).await;
    assert!(second.get("rooms").is_none());
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
async fn idle_indexes_are_dropped_and_built_again() {
    let world = World::new(4);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let first = world.sync(&request(&alice)).await;
    assert_eq!(world.sync.notifier.sizes(), (1, 1));
    world.sync.notifier.drop_idle();
    assert_eq!(world.sync.notifier.sizes(), (1, 1));
    world.clock.advance(6 * 60 * 1000);
    world.sync.notifier.drop_idle();
    assert_eq!(world.sync.notifier.sizes(), (0, 0));
    say(&room, &bob, "meanwhile").await;
    let second = world.sync(&request(&alice).since(&first)).await;
    assert_eq!(bodies(&second, "join", &room), ["meanwhile"]);
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

/// Not a check of time, which a busy machine would fail: prints what a sync costs.
#[tokio::test]
#[ignore = "prints costs; run it by hand"]
async fn costs() {
    let world = World::new(16);
    let alice = world.user("alice").await;
    let mut rooms = Vec::new();
    let cpu = |began: std::time::Instant, count: u32| began.elapsed() / count;
    for target in [10, 300, 5000] {
        while rooms.len() < target {
            rooms.push(world.room(&alice, Preset::PublicChat).await);
        }
        let began = std::time::Instant::now();
        let first = world.sync(&request(&alice)).await;
        println!("{target} rooms: initial {:?}", began.elapsed());
        let next = request(&alice).since(&first);
        let began = std::time::Instant::now();
        for _ in 0..2000 {
            let mut view = world.sync.sync(&next).await.unwrap();
            v3::render(&next, &mut view).unwrap();
        }
        println!("{target} rooms: idle {:?}", cpu(began, 2000));
    }
    let room = &rooms[0];
    let mut readers = Vec::new();
    for number in 0..200 {
        let user = world.user(&format!("reader{number}")).await;
        join(room, &user).await;
        readers.push(user);
    }
    for _ in 0..500 {
        say(room, &alice, "history").await;
    }
    let mut tokens = Vec::new();
    for user in &readers {
        let answer = world.sync(&request(user)).await;
        tokens.push(request(user).since(&answer));
    }
    for round in 0..3 {
        let began = std::time::Instant::now();
        for next in &tokens {
            let mut view = world.sync.sync(next).await.unwrap();
            v3::render(next, &mut view).unwrap();
        }
        println!("round {round}: a sync of 200 without news {:?}", cpu(began, 200));
        let began = std::time::Instant::now();
        say(room, &alice, "to all").await;
        println!("round {round}: send {:?}", began.elapsed());
        let began = std::time::Instant::now();
        let mut views = Vec::new();
        for next in &tokens {
            views.push(world.sync.sync(next).await.unwrap());
        }
        println!("round {round}: look {:?}", cpu(began, 200));
        let began = std::time::Instant::now();
        for (next, view) in tokens.iter_mut().zip(&mut views) {
            let text = v3::render(next, view).unwrap();
            assert!(text.contains("to all"));
            next.since = Some(view.next.clone());
        }
        println!("round {round}: render {:?}", cpu(began, 200));
    }
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
