//! What other servers are given.

use ruma::{OwnedEventId, ServerName, server_name};

use super::*;
use crate::{Dance, Membership, Missing, Sees};

/// A server that is not in the room.
fn other() -> &'static ServerName {
    server_name!("other")
}

fn ours() -> &'static ServerName {
    server_name!("hs1")
}

fn kinds(events: &[Arc<Event>]) -> Vec<&str> {
    events.iter().map(|event| event.pdu.kind()).collect()
}

fn ids(events: &[Arc<Event>]) -> Vec<OwnedEventId> {
    events.iter().map(|event| event.id().to_owned()).collect()
}

fn versions(list: &[&str]) -> Vec<RoomVersionId> {
    let version = |text: &&str| RoomVersionId::try_from(*text).expect("a version");
    list.iter().map(version).collect()
}

fn stranger() -> OwnedUserId {
    UserId::parse("@eve:other").expect("a user id")
}

#[tokio::test]
async fn an_auth_chain_has_the_create_event_in_every_version() {
    let world = World::new(1).await;
    for version in ["10", "12"] {
        let room = world.create(version).await;
        let bob = user("bob");
        room.join(&bob, Map::new()).await.expect("bob joins");
        let join = room.state("m.room.member", bob.as_str()).expect("a look-up");
        let join = join.expect("bob's join");
        let chain = room.serve_event_auth(join.id()).expect("a chain");
        let mut found = kinds(&chain);
        found.sort_unstable();
        let expected = [
            "m.room.create",
            "m.room.join_rules",
            "m.room.member",
            "m.room.power_levels",
        ];
        assert_eq!(found, expected, "{version}");
        assert_eq!(chain[0].pdu.kind(), "m.room.create", "oldest first");
        let create = room.serve_event_auth(chain[0].id()).expect("a chain");
        assert!(create.is_empty());
    }
}

#[tokio::test]
async fn the_state_before_an_event_does_not_have_it() {
    let world = World::new(1).await;
    let room = world.room().await;
    let bob = room.state("m.room.member", "@bob:hs1").expect("a look-up");
    let bob = bob.expect("bob's join");
    let before = room.serve_state(bob.id()).expect("the state");
    assert!(!ids(&before.state).contains(&bob.id().to_owned()));
    assert_eq!(before.state.len() + 1, room.full_state().expect("a state").len());
    let alone = room.serve_state_ids(bob.id()).expect("the ids");
    assert_eq!(alone.state, ids(&before.state));
    assert_eq!(alone.auth_chain, ids(&before.auth_chain));
    let unknown = OwnedEventId::try_from("$unknown").expect("an id");
    assert!(matches!(room.serve_state(&unknown), Err(Error::NotFound(_))));
}

#[tokio::test]
async fn missing_events_are_those_nearest_to_the_latest() {
    let world = World::new(1).await;
    let room = world.room().await;
    for number in 0..30 {
        let event = text("alice", &number.to_string());
        room.send(event, None).await.expect("a message");
    }
    let all = timeline(&room);
    let last = all.len() - 1;
    let check =
        |earliest: usize, latest: usize, limit: usize, min_depth: u64, expected: std::ops::Range<usize>| {
            let wanted = Missing {
                earliest: &[all[earliest].id().to_owned()],
                latest: &[all[latest].id().to_owned()],
                limit,
                min_depth,
            };
            let found = room.missing_events(ours(), &wanted).expect("a walk");
            assert_eq!(ids(&found), ids(&all[expected]));
        };
    check(0, 5, 10, 0, 1..5);
    check(last - 5, last, 10, 0, last - 4..last);
    check(0, last, 3, 0, last - 3..last);
    check(0, last, 1_000, 0, last - 20..last);
    check(0, 5, 10, all[3].pdu.depth(), 3..5);
    let found = room.backfill(ours(), &[all[4].id().to_owned()], 3);
    let found = found.expect("a walk");
    assert_eq!(
        ids(&found),
        ids(&[all[4].clone(), all[3].clone(), all[2].clone()])
    );
    let found = room.backfill(ours(), &ids(&all[last..]), 1_000).expect("a walk");
    assert_eq!(found.len(), all.len());
}

#[tokio::test]
async fn what_a_server_may_not_see_is_redacted() {
    let world = World::new(1).await;
    let room = world.room().await;
    let set = |visibility: &str| {
        let content = json!({ "history_visibility": visibility });
        state("alice", "m.room.history_visibility", content)
    };
    for (visibility, to_ours, to_other) in [
        ("world_readable", true, true),
        ("shared", true, false),
        ("invited", true, false),
        ("joined", true, false),
    ] {
        room.send(set(visibility), None).await.expect("a new visibility");
        let sent = room.send(text("alice", "secret"), None).await.expect("a message");
        let event = room.event_by_id(&sent.event_id).expect("a look-up");
        let event = event.expect("the message");
        for (server, expected) in [(ours(), to_ours), (other(), to_other)] {
            let mut viewer = room.server_viewer(server).expect("a viewer");
            let shown = viewer.shown(&event).expect("an event");
            let whole = shown.pdu.content() == event.pdu.content();
            assert_eq!(whole, expected, "{visibility} {server}");
            assert_eq!(shown.id(), event.id());
            assert_eq!(viewer.may_see(&event).expect("an answer"), expected);
        }
    }
    // The change to `world_readable` was seen by everybody, the change away from it too.
    let all = timeline(&room);
    let mut viewer = room.server_viewer(other()).expect("a viewer");
    let seen: Vec<bool> = all
        .iter()
        .filter(|event| event.pdu.kind() == "m.room.history_visibility")
        .map(|event| viewer.may_see(event).expect("an answer"))
        .collect();
    assert_eq!(seen, [false, true, true, false, false]);
}

#[tokio::test]
async fn an_invited_server_sees_from_the_invitation_on() {
    let world = World::new(1).await;
    let room = world.room().await;
    let content = json!({ "history_visibility": "invited" });
    let visibility = state("alice", "m.room.history_visibility", content);
    room.send(visibility, None).await.expect("a visibility");
    room.send(text("alice", "before"), None).await.expect("a message");
    let invite = NewEvent::state(
        &user("alice"),
        "m.room.member",
        stranger().as_str(),
        &json!({ "membership": "invite" }),
    );
    room.send(invite, None).await.expect("an invitation");
    room.send(text("alice", "after"), None).await.expect("a message");
    let all = timeline(&room);
    let mut viewer = room.server_viewer(other()).expect("a viewer");
    let seen: Vec<bool> = all[all.len() - 3..]
        .iter()
        .map(|event| viewer.may_see(event).expect("an answer"))
        .collect();
    assert_eq!(seen, [false, true, true]);
}

#[tokio::test]
async fn a_join_answer_without_members() {
    let world = World::new(1).await;
    let room = world.room().await;
    let carol = user("carol");
    room.join(&carol, Map::new()).await.expect("carol joins");
    let join = room.state("m.room.member", carol.as_str()).expect("a look-up");
    let join = join.expect("carol's join");
    let whole = room.join_answer(&join, None).expect("an answer");
    assert_eq!(whole.state.len() + 1, room.full_state().expect("a state").len());
    let part = room.join_answer(&join, Some(room.servers())).expect("an answer");
    assert_eq!(part.servers, Some(vec![ours().to_owned()]));
    // The room has no name: two members name it.
    let members = kinds(&part.state)
        .iter()
        .filter(|kind| **kind == "m.room.member")
        .count();
    assert_eq!(members, 2);
    assert!(part.auth_chain.is_empty(), "all of it is in the state");
    let name = state("alice", "m.room.name", json!({ "name": "A room" }));
    room.send(name, None).await.expect("a name");
    let part = room.join_answer(&join, Some(room.servers())).expect("an answer");
    assert!(!kinds(&part.state).contains(&"m.room.member"));
    assert_eq!(
        kinds(&part.auth_chain),
        ["m.room.member"],
        "alice's join, which authorizes all"
    );
}

#[tokio::test]
async fn templates() {
    let world = World::new(1).await;
    let eve = stranger();
    for version in ["2", "10", "12"] {
        let room = world.create(version).await;
        let known = versions(&["1", version]);
        let made = room
            .make_member(Dance::Join, &eve, &known)
            .await
            .expect("a template");
        assert_eq!(made.version.as_str(), version);
        assert_eq!(made.event["sender"], "@eve:other");
        assert_eq!(made.event["state_key"], "@eve:other");
        assert_eq!(made.event["room_id"], room.id().as_str());
        assert_eq!(made.event["content"], json!({ "membership": "join" }));
        let all = timeline(&room);
        let last = all.last().expect("an event");
        assert_eq!(made.event["depth"], last.pdu.depth() + 1);
        let previous = &made.event["prev_events"][0];
        let id = if version == "2" { &previous[0] } else { previous };
        assert_eq!(id, last.id().as_str());
        let expected = if version == "12" { 2 } else { 3 };
        let auth = made.event["auth_events"].as_array().expect("a list");
        assert_eq!(
            auth.len(),
            expected,
            "create (not in 12), power levels, join rules"
        );
        let refused = room.make_member(Dance::Join, &eve, &versions(&["3"])).await;
        assert!(matches!(refused, Err(Error::IncompatibleVersion(found)) if found == version));
        for dance in [Dance::Leave, Dance::Knock] {
            let refused = room.make_member(dance, &eve, &versions(&[version])).await;
            assert!(matches!(refused, Err(Error::Forbidden(_))), "{dance:?}");
        }
        let rule = state("alice", "m.room.join_rules", json!({ "join_rule": "invite" }));
        room.send(rule, None).await.expect("a rule");
        let refused = room.make_member(Dance::Join, &eve, &versions(&[version])).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))));
    }
}

#[tokio::test]
async fn a_restricted_room_asks_who_the_user_is() {
    let world = World::new(1).await;
    let eve = stranger();
    let room = world.create("12").await;
    let space = world.create("12").await;
    let rule = |id: &str| {
        let allow = json!([{ "type": "m.room_membership", "room_id": id }]);
        state(
            "alice",
            "m.room.join_rules",
            json!({ "join_rule": "restricted", "allow": allow }),
        )
    };
    room.send(rule(space.id().as_str()), None).await.expect("a rule");
    let make = || async { room.make_member(Dance::Join, &eve, &versions(&["12"])).await };
    assert!(
        matches!(make().await, Err(Error::Forbidden(_))),
        "not in the space"
    );
    room.send(rule("!unknown:other"), None).await.expect("a rule");
    assert!(matches!(make().await, Err(Error::UnableToAuthorizeJoin(_))));
    // Invited, nobody needs to vouch.
    let content = json!({ "membership": "invite" });
    let invite = NewEvent::state(&user("alice"), "m.room.member", eve.as_str(), &content);
    room.send(invite, None).await.expect("an invitation");
    assert_eq!(room.membership(&eve).expect("a look-up"), Membership::Invite);
    let made = make().await.expect("a template");
    assert_eq!(made.event["content"], json!({ "membership": "join" }));
}

/// Of a great many members here one may let others in, and is the last of them.
#[tokio::test]
async fn who_vouches_is_found_among_many() {
    let world = World::new(1).await;
    let room = world.create("10").await;
    let public = state("alice", "m.room.join_rules", json!({ "join_rule": "public" }));
    room.send(public, None).await.expect("a rule");
    for number in 0..1_001 {
        let member = user(&format!("m{number:04}"));
        room.join(&member, serde_json::Map::new()).await.expect("a join");
    }
    let (alice, zoe) = (user("alice"), user("zoe"));
    room.join(&zoe, serde_json::Map::new()).await.expect("a join");
    assert_eq!(room.find_authorizer().expect("a look-up"), Some(alice.clone()));
    let users = json!({ zoe.as_str(): 50, alice.as_str(): 0 });
    let levels = state(
        "alice",
        "m.room.power_levels",
        json!({ "users": users, "invite": 50 }),
    );
    room.send(levels, None).await.expect("levels");
    assert_eq!(room.find_authorizer().expect("a look-up"), Some(zoe));
}

#[tokio::test]
async fn access_control_lists() {
    let world = World::new(1).await;
    let room = world.room().await;
    assert!(room.acl_allows(other()).expect("an answer"));
    assert!(room.is_open_to(other()).expect("an answer"), "it is public");
    let content = json!({ "allow": ["*"], "deny": ["OTHER"] });
    let acl = state("alice", "m.room.server_acl", content);
    room.send(acl, None).await.expect("a list");
    assert!(!room.acl_allows(other()).expect("an answer"));
    assert!(!room.is_open_to(other()).expect("an answer"));
    assert!(room.acl_allows(ours()).expect("an answer"));
}

#[tokio::test]
async fn an_event_is_found_by_its_id_alone() {
    let mut world = World::new(1).await;
    world
        .rooms
        .start(&hearth_core::Shutdown::new())
        .expect("it starts");
    let room = world.room().await;
    let mut sent = Vec::new();
    for number in 0..3 {
        let event = text("alice", &number.to_string());
        sent.push(room.send(event, None).await.expect("a message").event_id);
    }
    let id = room.id().to_owned();
    drop(room);
    for round in 0..3 {
        for event in &sent {
            let found = world.rooms.room_of_event(event).expect("a look-up");
            assert_eq!(found.expect("the room").id(), id, "round {round}");
        }
        let unknown = OwnedEventId::try_from("$unknown").expect("an id");
        assert!(world.rooms.room_of_event(&unknown).expect("a look-up").is_none());
        world = world.crash();
    }
}
