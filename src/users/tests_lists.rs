//! Room lists, the user directory, reports, and what else is told of users, on the memory engine.

use hearth_storage::ShardId;
use ruma::{RoomId, device_id, room_id, user_id};
use serde_json::value::RawValue;
use serde_json::{Map, json};

use crate::tests::{ALICE, World, alice_id, raw, update};
use crate::*;

#[tokio::test]
async fn memberships_apply_once_and_in_order() {
    let world = World::new();
    let alice = world.alice().await;
    let room = room_id!("!room:example.org");
    let start = alice.position();
    let invite = MembershipUpdate {
        stripped_state: vec![raw(&json!({"type": "x"}))],
        ..update(room, Membership::Invite)
    };
    world.deliver(alice_id(), &invite, (1, 10)).await;
    assert_eq!(alice.room(room).unwrap().unwrap().stripped_state.len(), 1);
    world
        .deliver(alice_id(), &update(room, Membership::Join), (1, 12))
        .await;
    let position = alice.position();
    world.deliver(alice_id(), &invite, (1, 10)).await;
    world
        .deliver(alice_id(), &update(room, Membership::Join), (1, 12))
        .await;
    assert_eq!(
        alice.position(),
        position,
        "old and repeated deliveries change nothing"
    );
    let joined = alice.rooms(&[Membership::Join]).unwrap();
    assert_eq!(joined.len(), 1);
    assert_eq!(
        (joined[0].shard(), joined[0].room_position, joined[0].anchor),
        (ShardId(1), 12, 2)
    );
    assert!(alice.rooms(&[Membership::Invite]).unwrap().is_empty());
    assert_eq!(alice.rooms_changed_since(start).unwrap().len(), 1);
    assert!(matches!(alice.forget_room(room).await, Err(Error::Forbidden(_))));
    world
        .deliver(alice_id(), &update(room, Membership::Leave), (1, 13))
        .await;
    alice.forget_room(room).await.unwrap();
    assert!(alice.rooms(&[]).unwrap().is_empty());
    world
        .deliver(alice_id(), &update(room, Membership::Ban), (1, 14))
        .await;
    assert!(alice.room(room).unwrap().unwrap().forgotten);
    world
        .deliver(alice_id(), &update(room, Membership::Join), (1, 15))
        .await;
    let entry = alice.room(room).unwrap().unwrap();
    assert!(!entry.forgotten && entry.was_joined);
    assert!(matches!(
        alice.forget_room(room_id!("!no:example.org")).await,
        Err(Error::NotFound(_))
    ));
    let stranger = user_id!("@nobody:example.org");
    world
        .deliver(stranger, &update(room, Membership::Join), (1, 16))
        .await;
}

#[tokio::test]
async fn an_upgraded_room_gets_the_tags_of_the_old() {
    let world = World::new();
    let alice = world.alice().await;
    let (old, new) = (room_id!("!old:example.org"), room_id!("!new:example.org"));
    alice.set_tag(old, "m.favourite", Map::new()).await.unwrap();
    let join = MembershipUpdate {
        predecessor: Some(old.to_owned()),
        ..update(new, Membership::Join)
    };
    world.deliver(alice_id(), &join, (1, 3)).await;
    assert!(alice.tags(new).unwrap().contains_key("m.favourite"));
    alice.delete_tag(new, "m.favourite").await.unwrap();
    world.deliver(alice_id(), &join, (1, 4)).await;
    assert!(
        alice.tags(new).unwrap().is_empty(),
        "carried over only when the user comes in"
    );
}

#[tokio::test]
async fn the_directory_finds_by_beginnings_of_words() {
    let world = World::new();
    let alice = world.alice().await;
    world
        .users
        .create(user_id!("@alfred.k:example.org"), NewAccount::default())
        .await
        .unwrap();
    alice
        .set_profile_field("displayname", json!("Älice Smith"))
        .await
        .unwrap();
    let search = |term: &str| {
        let found = world.users.directory().search(term, 10, &|_| true).unwrap();
        found
            .users
            .into_iter()
            .map(|user| user.user_id.localpart().to_owned())
            .collect::<Vec<_>>()
    };
    for (term, expected) in [
        ("al", &["alfred.k", "alice"][..]),
        ("smith äl", &["alice"]),
        ("@alfred.k:example.org", &["alfred.k"]),
        ("@al", &["alfred.k", "alice"]),
        ("Alfred.k:example.org", &["alfred.k"]),
        ("al:example", &[]),
        ("smith:äl", &["alice"]),
        ("lice", &[]),
        ("", &[]),
        ("\0", &[]),
    ] {
        assert_eq!(search(term), expected, "{term}");
    }
    let limited = world.users.directory().search("al", 1, &|_| true).unwrap();
    assert!(limited.limited && limited.users.len() == 1);
    assert!(
        world
            .users
            .directory()
            .search("al", 9, &|_| false)
            .unwrap()
            .users
            .is_empty()
    );
    alice
        .set_profile_field("displayname", json!("Bob"))
        .await
        .unwrap();
    assert_eq!(search("smith"), Vec::<String>::new());
    assert_eq!(search("bob"), ["alice"]);
    alice.deactivate(false).await.unwrap();
    assert_eq!(search("bob"), Vec::<String>::new());
}

#[tokio::test]
async fn reports_openid_and_status() {
    let world = World::new();
    let alice = world.alice().await;
    for n in 0..3 {
        let report = Report {
            reporter: alice_id().to_owned(),
            room_id: None,
            event_id: None,
            user_id: Some(alice_id().to_owned()),
            reason: "ä".repeat(4000),
            score: None,
            ts: n,
        };
        world.users.reports().add(report).await.unwrap();
    }
    let newest = world.users.reports().newest(2).unwrap();
    assert_eq!(newest.iter().map(|report| report.ts).collect::<Vec<_>>(), [2, 1]);
    let token = alice.issue_openid_token().await.unwrap();
    let owner = |world: &World| world.users.openid_user(&token.access_token).unwrap();
    assert_eq!(owner(&world).unwrap(), ALICE);
    assert!(world.users.authenticate(&token.access_token).await.is_err());
    let world = world.restarted(3);
    assert_eq!(owner(&world).unwrap(), ALICE);
    let alice = world.users.get(alice_id()).unwrap().unwrap();
    for _ in 0..100 {
        alice.issue_openid_token().await.unwrap();
    }
    assert_eq!(owner(&world), None, "the oldest gave way");
    let token = alice.issue_openid_token().await.unwrap();
    world.clock.advance(token.expires_in_s * 1000);
    assert_eq!(world.users.openid_user(&token.access_token).unwrap(), None);
    let device = device_id!("A");
    alice
        .set_presence(device, PresenceState::Online, Some(Some("here".into())))
        .await
        .unwrap();
    let world = world.restarted(2);
    let info = world.users.presence().get(alice_id());
    assert_eq!(
        (info.state, info.status_msg.as_deref()),
        (PresenceState::Offline, Some("here"))
    );
}

#[tokio::test]
async fn all_account_data_of_a_user_is_bounded() {
    let world = World::new();
    let alice = world.alice().await;
    let room = room_id!("!room:example.org");
    let (large, small) = (
        raw(&json!({ "x": "x".repeat(255 << 10) })),
        raw(&json!({ "x": 1 })),
    );
    let set = async |room: Option<&RoomId>, number: usize, content: &RawValue| {
        let kind = format!("org.example.{number}");
        alice.set_account_data(room, &kind, content).await
    };
    let mut stored = 0;
    while stored < 100 && set(None, stored, &large).await.is_ok() {
        stored += 1;
    }
    assert_eq!(stored, 64);
    assert!(matches!(
        set(Some(room), 0, &large).await,
        Err(Error::TooLarge(_))
    ));
    // What is there can be changed and deleted, which makes room for something else.
    set(None, 0, &small).await.unwrap();
    set(None, 0, &large).await.unwrap();
    alice.delete_account_data(None, "org.example.1").await.unwrap();
    set(Some(room), 0, &large).await.unwrap();
    assert!(set(None, 1, &large).await.is_err());
    set(None, 1, &small).await.unwrap();
}
