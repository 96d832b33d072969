//! Syncs of those who are invited, join, leave or are put out, and which members they show.

use super::*;

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
