//! What those outside are shown of rooms: summaries, spaces, aliases, the directory.

use super::*;

async fn made(server: &Server, token: &str, body: Value) -> String {
    let made = server.post(&format!("{V3}/createRoom"), token, body).await.ok();
    made["room_id"].as_str().expect("a room id").to_owned()
}

/// The rooms that let members in count for nothing where the join rule does not let them in, and so does a rule that the room's
/// version does not have.
#[tokio::test]
async fn only_rules_that_hold_show_a_room() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let club = made(&server, &alice, json!({ "preset": "public_chat" })).await;
    server
        .post(&format!("{V3}/rooms/{club}/join"), &bob, json!({}))
        .await
        .ok();
    let mut rooms = Vec::new();
    for (version, rule, is_shown) in [
        ("12", "restricted", true),
        ("12", "knock_restricted", true),
        ("12", "invite", false),
        ("12", "private", false),
        ("7", "restricted", false),
        ("9", "knock_restricted", false),
        ("7", "knock", true),
        ("6", "knock", false),
    ] {
        let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
        let rule_event =
            json!({ "type": "m.room.join_rules", "content": { "join_rule": rule, "allow": allow } });
        let body = json!({ "room_version": version, "name": "Den", "initial_state": [rule_event] });
        let room = made(&server, &alice, body).await;
        let summary = format!("/_matrix/client/v1/room_summary/{room}");
        let answer = server.get(&summary, &bob).await;
        let expected = if is_shown { 200 } else { 404 };
        assert_eq!(answer.status, expected, "{version} {rule}");
        let own = server.get(&summary, &alice).await.ok();
        let names_rooms = rule.ends_with("restricted") && version == "12";
        assert_eq!(
            own.get("allowed_room_ids").is_some(),
            names_rooms,
            "{version} {rule}"
        );
        rooms.push((room, is_shown));
    }
    let children = rooms.iter().map(
        |(room, _)| json!({ "type": "m.space.child", "state_key": room, "content": { "via": ["hs1"] } }),
    );
    let body = json!({
        "preset": "public_chat",
        "creation_content": { "type": "m.space" },
        "initial_state": children.collect::<Vec<_>>(),
    });
    let space = made(&server, &alice, body).await;
    // Pages show the same rooms as one answer, each once.
    for limit in [1, 2, 50] {
        let mut found = Vec::new();
        let mut from = String::new();
        loop {
            let path = format!("/_matrix/client/v1/rooms/{space}/hierarchy?limit={limit}&from={from}");
            let page = server.get(&path, &bob).await.ok();
            let listed = page["rooms"].as_array().expect("a list").iter();
            found.extend(listed.map(|room| room["room_id"].as_str().expect("an id").to_owned()));
            match page["next_batch"].as_str() {
                Some(next) => from = next.to_owned(),
                None => break,
            }
        }
        let expected = rooms
            .iter()
            .filter(|(_, is_shown)| *is_shown)
            .map(|(room, _)| room);
        let expected: std::collections::BTreeSet<_> = expected.chain([&space]).cloned().collect();
        assert_eq!(found.len(), expected.len(), "{limit}");
        assert_eq!(
            found.into_iter().collect::<std::collections::BTreeSet<_>>(),
            expected,
            "{limit}"
        );
    }
}

/// Power over a room's aliases is of use to its members alone.
#[tokio::test]
async fn who_is_not_in_a_room_takes_none_of_its_aliases() {
    let server = Server::new();
    let mut tokens = Vec::new();
    for name in ["alice", "bob", "eve"] {
        tokens.push(server.user(name, name).await);
    }
    let [alice, bob, eve] = tokens.as_slice() else {
        panic!("three")
    };
    // In this room everybody may set anything.
    let levels = json!({ "state_default": 0, "events": {} });
    let room = json!({ "preset": "public_chat", "power_level_content_override": levels });
    let room = made(&server, alice, room).await;
    let alias = |name: &str| format!("{V3}/directory/room/%23{name}:hs1");
    for name in ["one", "two"] {
        server
            .put(&alias(name), alice, json!({ "room_id": room }))
            .await
            .ok();
    }
    let delete = async |token: &str, name: &str| {
        server
            .call("DELETE", &alias(name), Some(token), Value::Null)
            .await
    };
    delete(eve, "one").await.refused(403, "M_FORBIDDEN");
    let join = format!("{V3}/rooms/{room}/join");
    server.post(&join, bob, json!({})).await.ok();
    delete(bob, "one").await.ok();
    server
        .post(&format!("{V3}/rooms/{room}/leave"), bob, json!({}))
        .await
        .ok();
    delete(bob, "two").await.refused(403, "M_FORBIDDEN");
    delete(alice, "two").await.ok();
}

/// An invitation counts as one in whatever way it is made: users who take none are not invited by the first state of a room.
#[tokio::test]
async fn the_first_state_of_a_room_invites_as_invitations_do() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let create = format!("{V3}/createRoom");
    let invites = |user: &str| {
        json!({ "initial_state": [
            { "type": "m.room.member", "state_key": user, "content": { "membership": "invite" } },
        ] })
    };
    server.post(&create, &alice, invites("@bob:hs1")).await.ok();
    let block = json!({ "default_action": "block" });
    let path = format!("{V3}/user/@bob:hs1/account_data/m.invite_permission_config");
    server.put(&path, &bob, block).await.ok();
    server
        .post(&create, &alice, invites("@bob:hs1"))
        .await
        .refused(403, "M_INVITE_BLOCKED");
    server
        .post(&create, &alice, invites("@nobody:hs1"))
        .await
        .refused(404, "M_NOT_FOUND");
    // Another server has to be asked.
    server
        .post(&create, &alice, invites("@carol:elsewhere"))
        .await
        .refused(400, "M_INVALID_PARAM");
    let bans = json!({ "initial_state": [
        { "type": "m.room.member", "state_key": "@eve:elsewhere", "content": { "membership": "ban" } },
    ] });
    server.post(&create, &alice, bans).await.ok();
}

/// Who asks without a token may have other servers asked, and so only so often.
#[tokio::test]
async fn strangers_ask_the_directory_within_a_limit() {
    let server = Server::with(|config| config.rate_limits = true, Registrations::default());
    for path in [
        "/directory/room/%23room:hs1",
        "/publicRooms",
        "/directory/list/room/!room:hs1",
    ] {
        let mut refused = false;
        // A token that is no good is none.
        for token in [None, Some("old")].into_iter().cycle().take(2_000) {
            let answer = server
                .call("GET", &format!("{V3}{path}"), token, Value::Null)
                .await;
            assert_ne!(answer.status, 401, "{path}");
            refused = answer.status == 429;
            if refused {
                break;
            }
        }
        assert!(refused, "{path}");
        server.clock.advance(3_600_000);
    }
}

/// A space whose children say more than there is to say is shown as far as an answer goes; the servers that it names beyond
/// those that are asked cost nothing.
#[tokio::test]
async fn a_space_with_very_large_children() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let body = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } });
    let space = made(&server, &alice, body).await;
    let room = made(&server, &alice, json!({ "preset": "public_chat" })).await;
    const CHILDREN: usize = 80;
    let child = async |id: &str, order: &str, more: usize| {
        let content = json!({ "via": ["hs1", "hs1"], "order": order, "more": "x".repeat(more) });
        let path = format!("{V3}/rooms/{space}/state/m.space.child/{id}");
        server.put(&path, &alice, content).await.ok();
    };
    for number in 0..CHILDREN {
        child(&format!("!child{number}:elsewhere"), "b", 60_000).await;
    }
    child(&room, "a", 1).await;
    let path = format!("/_matrix/client/v1/rooms/{space}/hierarchy");
    let answer = server.get(&path, &alice).await;
    assert!(answer.body.len() < 5 << 20, "{}", answer.body.len());
    let rooms = answer.ok()["rooms"].as_array().cloned().expect("a list");
    assert_eq!(rooms.len(), 2);
    let shown = rooms[0]["children_state"].as_array().expect("a list");
    assert!(shown.len() < CHILDREN, "{}", shown.len());
    assert_eq!(shown[0]["state_key"], room.as_str(), "in their order");
    assert_eq!(rooms[1]["room_id"], room.as_str());
}
