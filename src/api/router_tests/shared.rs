//! Where accounts and rooms meet.

use serde_json::{Value, json};

use super::*;

async fn shared_room(server: &Server, one: &str, other: &str) -> String {
    let body = json!({ "preset": "public_chat" });
    let room = server.post(&format!("{V3}/createRoom"), one, body).await.ok()["room_id"].clone();
    let room = room.as_str().expect("a room id").to_owned();
    server
        .post(&format!("{V3}/join/{room}"), other, json!({}))
        .await
        .ok();
    room
}

/// A client that hangs up after it has asked for a room.
#[tokio::test]
async fn a_room_is_created_to_its_end() {
    let server = Server::new();
    let (alice, _) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let body = json!({ "invite": ["@bob:hs1"], "topic": "All of it", "room_alias_name": "left" });
    for looked_after in 0..40 {
        let mut body = body.clone();
        body["room_alias_name"] = json!(format!("left{looked_after}"));
        let path = format!("{V3}/createRoom");
        let asked = server.post(&path, &alice, body);
        let hangs_up = async {
            for _ in 0..looked_after {
                tokio::time::sleep(std::time::Duration::from_micros(200)).await;
            }
        };
        tokio::select! {
            _ = asked => {}
            () = hangs_up => {}
        }
    }
    let joined = [hearth_users::Membership::Join];
    let handle = server.app.user(ruma::user_id!("@alice:hs1")).expect("alice");
    let bob = ruma::user_id!("@bob:hs1");
    let is_whole = || {
        handle.rooms(&joined).expect("they are read").iter().all(|entry| {
            let room = server
                .app
                .rooms
                .get(&entry.room_id)
                .expect("it is read")
                .expect("it is there");
            room.membership(bob).expect("it is read") == hearth_rooms::Membership::Invite
        })
    };
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        if is_whole() {
            return;
        }
    }
    panic!("there are rooms to which nobody is invited");
}

#[tokio::test]
async fn reports_and_mutual_rooms() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let mutual = "/_matrix/client/v1/mutual_rooms";
    let with_bob = format!("{mutual}?user_id=@bob:hs1");
    assert_eq!(
        server.get(&with_bob, &alice).await.ok(),
        json!({ "joined": [], "count": 0 })
    );
    let room = shared_room(&server, &alice, &bob).await;
    assert_eq!(
        server.get(&with_bob, &alice).await.ok(),
        json!({ "joined": [room], "count": 1 })
    );
    server.get(mutual, &alice).await.refused(400, "M_MISSING_PARAM");
    server
        .get(&format!("{mutual}?user_id=@alice:hs1"), &alice)
        .await
        .refused(400, "M_INVALID_PARAM");
    let event = format!("{V3}/rooms/{room}/send/m.room.message/1");
    let sent = server
        .put(&event, &bob, json!({ "msgtype": "m.text", "body": "rude" }))
        .await
        .ok();
    let report = format!(
        "{V3}/rooms/{room}/report/{}",
        sent["event_id"].as_str().expect("an event id")
    );
    server
        .post(&report, &alice, json!({ "reason": "rude", "score": -100 }))
        .await
        .ok();
    server.post(&report, &alice, json!({})).await.ok();
    server
        .post(&report, &alice, Value::Null)
        .await
        .refused(400, "M_NOT_JSON");
    let eve = server.user("eve", "E").await;
    server
        .post(&report, &eve, json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    let unknown = format!("{V3}/rooms/{room}/report/$unknown");
    server
        .post(&unknown, &alice, json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    server
        .post(
            &format!("{V3}/rooms/{room}/report"),
            &eve,
            json!({ "reason": "x" }),
        )
        .await
        .ok();
    server
        .post(
            &format!("{V3}/rooms/!none:hs1/report"),
            &eve,
            json!({ "reason": "x" }),
        )
        .await
        .refused(404, "M_NOT_FOUND");
    assert_eq!(server.app.users.reports().newest(10).expect("reports").len(), 3);
}

#[tokio::test]
async fn a_new_name_reaches_the_rooms_and_a_deactivated_user_leaves_them() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let room = shared_room(&server, &alice, &bob).await;
    let name = format!("{V3}/profile/@bob:hs1/displayname");
    server
        .put(&name, &bob, json!({ "displayname": "Bobby" }))
        .await
        .ok();
    let member = format!("{V3}/rooms/{room}/state/m.room.member/@bob:hs1");
    assert_eq!(server.get(&member, &alice).await.ok()["displayname"], "Bobby");
    let presence = format!("{V3}/presence/@bob:hs1/status");
    server.get(&presence, &alice).await.ok();
    let eve = server.user("eve", "E").await;
    server.get(&presence, &eve).await.refused(403, "M_FORBIDDEN");
    let body = json!({ "auth": password_auth("bob") });
    server
        .post(&format!("{V3}/account/deactivate"), &bob, body)
        .await
        .ok();
    assert_eq!(server.get(&member, &alice).await.ok()["membership"], "leave");
}

/// An id in an answer.
fn id(answer: &Value, name: &str) -> String {
    answer[name].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn who_sends_types_or_reads_is_active() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let room = shared_room(&server, &alice, &bob).await;
    let status = format!("{V3}/presence/@bob:hs1/status");
    let rooms = format!("{V3}/rooms/{room}");
    let said = json!({ "msgtype": "m.text", "body": "hello" });
    let sent = server
        .put(&format!("{rooms}/send/m.room.message/0"), &bob, said.clone())
        .await
        .ok();
    let event = id(&sent, "event_id");
    let typing = json!({ "typing": true, "timeout": 1000 });
    let acts = [
        ("PUT", "/send/m.room.message/1".to_owned(), said),
        (
            "PUT",
            "/state/m.room.member/@bob:hs1".to_owned(),
            json!({ "membership": "join", "x": 1 }),
        ),
        ("PUT", format!("/redact/{event}/2"), json!({})),
        ("PUT", "/typing/@bob:hs1".to_owned(), typing),
        ("POST", format!("/receipt/m.read/{event}"), json!({})),
        (
            "POST",
            "/read_markers".to_owned(),
            json!({ "m.fully_read": event }),
        ),
    ];
    for (method, path, body) in acts {
        server
            .put(&status, &bob, json!({ "presence": "online" }))
            .await
            .ok();
        server.clock.advance(20_000);
        let before = server.get(&status, &alice).await.ok();
        assert_eq!(before["last_active_ago"], 20_000, "{path}");
        server
            .call(method, &format!("{rooms}{path}"), Some(&bob), body)
            .await
            .ok();
        let after = server.get(&status, &alice).await.ok();
        assert_eq!(after["last_active_ago"], 0, "{path}");
        assert_eq!(after["currently_active"], true, "{path}");
        server.clock.advance(60_000);
    }
}

#[tokio::test]
async fn a_retransmission_is_answered_also_after_leaving() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let room = shared_room(&server, &alice, &bob).await;
    let rooms = format!("{V3}/rooms/{room}");
    let send = format!("{rooms}/send/m.room.message/1");
    let body = json!({ "msgtype": "m.text", "body": "hello" });
    let sent = server.put(&send, &bob, body.clone()).await.ok();
    let redact = format!("{rooms}/redact/{}/1", id(&sent, "event_id"));
    let redacted = server.put(&redact, &bob, json!({})).await.ok();
    server.post(&format!("{rooms}/leave"), &bob, json!({})).await.ok();
    assert_eq!(server.put(&send, &bob, body.clone()).await.ok(), sent);
    assert_eq!(server.put(&redact, &bob, json!({})).await.ok(), redacted);
    let other = format!("{rooms}/send/m.room.message/2");
    server
        .put(&other, &bob, body.clone())
        .await
        .refused(403, "M_FORBIDDEN");
    // The transaction is its sender's.
    server.user("eve", "B").await;
    let eve = server.user("eve", "B").await;
    server.put(&send, &eve, body).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn the_filter_of_a_context_holds_for_its_state() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let bob = server.user("bob", "B").await;
    let room = shared_room(&server, &alice, &bob).await;
    let send = format!("{V3}/rooms/{room}/send/m.room.message/1");
    let sent = server.put(&send, &alice, json!({ "body": "x" })).await.ok();
    let context = format!("{V3}/rooms/{room}/context/{}", id(&sent, "event_id"));
    let kinds = |answer: &Value, list: &str| {
        let list = answer[list].as_array().cloned().unwrap_or_default();
        let kinds = list.iter().map(|event| id(event, "type"));
        kinds.collect::<std::collections::BTreeSet<_>>()
    };
    let all = server.get(&context, &alice).await.ok();
    assert!(kinds(&all, "state").contains("m.room.create"));
    let filtered = format!("{context}?filter=%7B%22types%22%3A%5B%22m.room.member%22%5D%7D");
    let filtered = server.get(&filtered, &alice).await.ok();
    assert_eq!(kinds(&filtered, "state"), ["m.room.member".to_owned()].into());
    assert_eq!(
        kinds(&filtered, "events_before"),
        ["m.room.member".to_owned()].into()
    );
    assert_eq!(filtered["event"]["event_id"], sent["event_id"]);
    let elsewhere = "filter=%7B%22not_rooms%22%3A%5B%22";
    let elsewhere = server
        .get(&format!("{context}?{elsewhere}{room}%22%5D%7D"), &alice)
        .await
        .ok();
    assert_eq!(kinds(&elsewhere, "state"), [].into());
    let messages = format!("{V3}/rooms/{room}/messages?dir=b&filter=%7B%22rooms%22%3A%5B%5D%7D");
    assert_eq!(server.get(&messages, &alice).await.ok()["chunk"], json!([]));
}

#[tokio::test]
async fn an_application_service_acts_within_bounds() {
    let server = Server::with(|_| {}, super::appservices::appservices());
    let bridge = "bridge-token";
    let ghost = json!({ "type": "m.login.application_service", "username": "_irc_a", "inhibit_login": true });
    server.post(&format!("{V3}/register"), bridge, ghost).await.ok();
    let as_ghost = "user_id=@_irc_a:hs1";
    let room = server
        .post(&format!("{V3}/createRoom?{as_ghost}"), bridge, json!({}))
        .await
        .ok();
    let room = id(&room, "room_id");
    // It may ask who is in the rooms of its users, and of no others.
    let members = |room: &str| format!("{V3}/rooms/{room}/joined_members");
    let found = server.get(&members(&room), bridge).await.ok();
    assert!(found["joined"].get("@_irc_a:hs1").is_some(), "{found}");
    let alice = server.user("alice", "A").await;
    server
        .get(&members(&room), &alice)
        .await
        .refused(403, "M_FORBIDDEN");
    let other = server
        .post(&format!("{V3}/createRoom"), &alice, json!({}))
        .await
        .ok();
    let other = id(&other, "room_id");
    server
        .get(&members(&other), bridge)
        .await
        .refused(403, "M_FORBIDDEN");
    // No event carries a time that canonical JSON has no number for.
    let at = |ts: u64, txn: &str| format!("{V3}/rooms/{room}/send/m.room.message/{txn}?{as_ghost}&ts={ts}");
    let body = json!({ "msgtype": "m.text", "body": "x" });
    let latest = (1 << 53) - 1;
    server.put(&at(latest, "1"), bridge, body.clone()).await.ok();
    server
        .put(&at(latest + 1, "2"), bridge, body)
        .await
        .refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn what_could_not_be_used_is_refused() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    for path in [
        "v1/mutual_rooms?user_id=@bob:hs1&from=nothing",
        "unstable/uk.half-shot.msc2666/user/mutual_rooms?user_id=@bob:hs1&batch_token=nothing",
    ] {
        let path = format!("/_matrix/client/{path}");
        server.get(&path, &alice).await.refused(400, "M_INVALID_PARAM");
    }
    // A filter that could not be used is not stored.
    let filters = format!("{V3}/user/@alice:hs1/filter");
    for wrong in [
        json!({ "room": { "timeline": { "rel_types": 7 } } }),
        json!({ "presence": { "rooms": 7 } }),
    ] {
        server
            .post(&filters, &alice, wrong)
            .await
            .refused(400, "M_BAD_JSON");
    }
    let nulls = json!({ "event_format": null, "room": { "timeline": { "not_types": null } } });
    let filter = id(&server.post(&filters, &alice, nulls).await.ok(), "filter_id");
    server
        .get(&format!("{V3}/sync?filter={filter}"), &alice)
        .await
        .ok();
    let room = shared_room(&server, &alice, &bob).await;
    // Power levels that could not be levels are wrong, not forbidden.
    let levels = format!("{V3}/rooms/{room}/state/m.room.power_levels");
    for wrong in [
        json!({ "ban": "50" }),
        json!({ "events": [] }),
        json!({ "users": { "bob": 50 } }),
        json!({ "users": { "@bob:hs1": null } }),
    ] {
        server
            .put(&levels, &alice, wrong)
            .await
            .refused(400, "M_BAD_JSON");
    }
    server
        .put(&levels, &bob, json!({ "ban": 50 }))
        .await
        .refused(403, "M_FORBIDDEN");
    // An event is found without its room, by those who may see it.
    let send = format!("{V3}/rooms/{room}/send/m.room.message/1");
    let sent = server.put(&send, &alice, json!({ "body": "x" })).await.ok();
    let event = format!("{V3}/events/{}", id(&sent, "event_id"));
    let found = server.get(&event, &bob).await.ok();
    assert_eq!(
        (&found["room_id"], &found["content"]["body"]),
        (&json!(room), &json!("x"))
    );
    let eve = server.user("eve", "E").await;
    server.get(&event, &eve).await.refused(404, "M_NOT_FOUND");
    server
        .get(&format!("{V3}/events/$nothing"), &bob)
        .await
        .refused(404, "M_NOT_FOUND");
    // Who is banned looks into no space.
    let hierarchy = format!("/_matrix/client/v1/rooms/{room}/hierarchy");
    server.get(&hierarchy, &eve).await.ok();
    let ban = json!({ "user_id": "@eve:hs1" });
    server
        .post(&format!("{V3}/rooms/{room}/ban"), &alice, ban)
        .await
        .ok();
    server.get(&hierarchy, &eve).await.refused(403, "M_FORBIDDEN");
}

/// A room that one is not in and never was answers like one that is not there, in the same words: nobody learns which rooms
/// exist where the specification has no status for a room that does not.
#[tokio::test]
async fn rooms_of_others_are_like_rooms_that_are_not_there() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let made = server.post(&format!("{V3}/createRoom"), &alice, json!({})).await;
    let room = made.ok()["room_id"].as_str().expect("a room id").to_owned();
    let nowhere = format!("!{}", "A".repeat(room.len() - 1));
    let target = json!({ "user_id": "@alice:hs1" });
    for (method, path, body) in [
        ("GET", "v3/rooms/ROOM/state", Value::Null),
        ("GET", "v3/rooms/ROOM/state/m.room.name", Value::Null),
        ("GET", "v3/rooms/ROOM/members", Value::Null),
        ("GET", "v3/rooms/ROOM/joined_members", Value::Null),
        ("GET", "v3/rooms/ROOM/aliases", Value::Null),
        ("GET", "v3/rooms/ROOM/initialSync", Value::Null),
        ("GET", "v3/rooms/ROOM/messages?dir=b", Value::Null),
        ("GET", "v3/rooms/ROOM/context/$x", Value::Null),
        ("GET", "v3/rooms/ROOM/event/$x", Value::Null),
        ("GET", "v1/rooms/ROOM/threads", Value::Null),
        ("GET", "v1/rooms/ROOM/relations/$x", Value::Null),
        ("GET", "v1/rooms/ROOM/hierarchy", Value::Null),
        ("GET", "v1/rooms/ROOM/timestamp_to_event?dir=b&ts=1", Value::Null),
        ("GET", "v1/room_summary/ROOM", Value::Null),
        (
            "PUT",
            "v3/rooms/ROOM/send/m.room.message/1",
            json!({ "body": "x" }),
        ),
        ("PUT", "v3/rooms/ROOM/state/m.room.name", json!({ "name": "x" })),
        ("PUT", "v3/rooms/ROOM/state/m.room.create", json!({})),
        (
            "PUT",
            "v3/rooms/ROOM/state/m.room.canonical_alias",
            json!({ "alias": "#nothing:hs1" }),
        ),
        (
            "PUT",
            "v3/rooms/ROOM/state/m.room.power_levels",
            json!({ "ban": "many" }),
        ),
        ("PUT", "v3/rooms/ROOM/state/m.room.member/@alice:hs1", json!({})),
        ("PUT", "v3/rooms/ROOM/redact/$x/1", json!({})),
        ("PUT", "v3/rooms/ROOM/typing/@bob:hs1", json!({ "typing": true })),
        ("POST", "v3/rooms/ROOM/receipt/m.read/$x", json!({})),
        ("POST", "v3/rooms/ROOM/read_markers", json!({ "m.read": "$x" })),
        ("POST", "v3/rooms/ROOM/invite", target.clone()),
        ("POST", "v3/rooms/ROOM/kick", target.clone()),
        ("POST", "v3/rooms/ROOM/ban", target.clone()),
        ("POST", "v3/rooms/ROOM/unban", target),
        ("POST", "v3/rooms/ROOM/leave", json!({})),
        ("POST", "v3/rooms/ROOM/forget", json!({})),
        ("POST", "v3/rooms/ROOM/upgrade", json!({ "new_version": "12" })),
    ] {
        let mut answers = Vec::new();
        for id in [&room, &nowhere] {
            let path = format!("/_matrix/client/{}", path.replace("ROOM", id));
            let answer = server.call(method, &path, Some(&bob), body.clone()).await;
            answers.push((answer.status, answer.json()));
        }
        assert_eq!(answers[0], answers[1], "{method} {path}");
        assert!(answers[0].0.is_client_error(), "{method} {path}");
    }
}

/// The profiles that come with a result are those of everybody whose events are shown, also of who came in after it.
#[tokio::test]
async fn who_speaks_around_a_result_has_a_name() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let create = format!("{V3}/createRoom");
    let made = server
        .post(&create, &alice, json!({ "preset": "public_chat" }))
        .await
        .ok();
    let room = id(&made, "room_id");
    let say = async |token: &str, text: &str| {
        let path = format!("{V3}/rooms/{room}/send/m.room.message/{text}");
        let content = json!({ "msgtype": "m.text", "body": text });
        server.put(&path, token, content).await.ok();
    };
    say(&alice, "needle").await;
    server
        .post(&format!("{V3}/rooms/{room}/join"), &bob, json!({}))
        .await
        .ok();
    say(&bob, "hay").await;
    let body = json!({ "search_categories": { "room_events": {
        "search_term": "needle",
        "event_context": { "before_limit": 1, "after_limit": 2, "include_profile": true },
    } } });
    let found = server.post(&format!("{V3}/search"), &alice, body).await.ok();
    let context = &found["search_categories"]["room_events"]["results"][0]["context"];
    assert_eq!(context["events_after"][1]["content"]["body"], "hay", "{found}");
    for user in ["alice", "bob"] {
        let name = &context["profile_info"][format!("@{user}:hs1")]["displayname"];
        assert_eq!(name, user, "{context}");
    }
}
