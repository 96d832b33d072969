//! What users keep with their account.

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn profiles() {
    let server = Server::with(
        |config| config.user_directory_all_users = true,
        Registrations::default(),
    );
    let alice = server.user("alice", "A").await;
    let profile = format!("{V3}/profile/@alice:hs1");
    let put = async |field: &str, body: Value| server.put(&format!("{profile}/{field}"), &alice, body).await;
    put("displayname", json!({ "displayname": "Alice" })).await.ok();
    put("avatar_url", json!({ "avatar_url": "mxc://hs1/abc" }))
        .await
        .ok();
    put(
        "org.example.job",
        json!({ "org.example.job": { "title": "baker" } }),
    )
    .await
    .ok();
    put("displayname", json!({ "displayname": 3 }))
        .await
        .refused(400, "M_INVALID_PARAM");
    put("displayname", json!({}))
        .await
        .refused(400, "M_MISSING_PARAM");
    put("Bad%20Key", json!({ "Bad Key": 1 }))
        .await
        .refused(400, "M_INVALID_PARAM");
    let long = "a".repeat(256);
    put(&long, json!({ long.as_str(): 1 }))
        .await
        .refused(400, "M_KEY_TOO_LARGE");
    let large = "x".repeat(65 << 10);
    put("org.example.large", json!({ "org.example.large": large }))
        .await
        .refused(400, "M_PROFILE_TOO_LARGE");
    let whole = server.call("GET", &profile, None, Value::Null).await.ok();
    let expected = json!({
        "displayname": "Alice",
        "avatar_url": "mxc://hs1/abc",
        "org.example.job": { "title": "baker" },
    });
    assert_eq!(whole, expected);
    let field = format!("{profile}/org.example.job");
    assert_eq!(
        server.call("GET", &field, None, Value::Null).await.ok(),
        json!({ "org.example.job": { "title": "baker" } })
    );
    server
        .call("DELETE", &field, Some(&alice), Value::Null)
        .await
        .ok();
    server
        .call("GET", &field, None, Value::Null)
        .await
        .refused(404, "M_NOT_FOUND");
    let bob = server.user("bob", "B").await;
    server
        .put(
            &format!("{profile}/displayname"),
            &bob,
            json!({ "displayname": "x" }),
        )
        .await
        .refused(403, "M_FORBIDDEN");
    server
        .call("GET", &format!("{V3}/profile/@nobody:hs1"), None, Value::Null)
        .await
        .refused(404, "M_NOT_FOUND");
    let search = json!({ "search_term": "alice", "limit": 5 });
    let found = server
        .post(&format!("{V3}/user_directory/search"), &bob, search)
        .await
        .ok();
    assert_eq!(found["results"][0]["user_id"], "@alice:hs1");
    assert_eq!(found["limited"], false);
}

/// Rooms to which @alice:hs1 is joined.
async fn rooms_of_alice(server: &Server, alice: &str, count: usize) -> Vec<String> {
    let mut rooms = Vec::new();
    for _ in 0..count {
        let made = server
            .post(&format!("{V3}/createRoom"), alice, json!({}))
            .await
            .ok();
        rooms.push(made["room_id"].as_str().expect("a room id").to_owned());
    }
    rooms
}

/// Under which name @alice:hs1 is known in a room.
async fn name_in(server: &Server, alice: &str, room: &str) -> Value {
    let path = format!("{V3}/rooms/{room}/state/m.room.member/@alice:hs1");
    server.get(&path, alice).await.ok()["displayname"].clone()
}

#[tokio::test]
async fn a_name_that_did_not_reach_all_rooms_reaches_them_when_it_is_set_again() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let rooms = rooms_of_alice(&server, &alice, 1).await;
    // The server died when the profile was stored.
    let user = server.app.users.get("@alice:hs1".try_into().expect("an id"));
    let user = user.expect("a look-up").expect("a user");
    user.set_profile_field("displayname", json!("Al"))
        .await
        .expect("stored");
    assert_eq!(name_in(&server, &alice, &rooms[0]).await, "alice");
    let path = format!("{V3}/profile/@alice:hs1/displayname");
    server
        .put(&path, &alice, json!({ "displayname": "Al" }))
        .await
        .ok();
    assert_eq!(name_in(&server, &alice, &rooms[0]).await, "Al");
    user.delete_profile_field("displayname").await.expect("stored");
    server.call("DELETE", &path, Some(&alice), Value::Null).await.ok();
    assert_eq!(name_in(&server, &alice, &rooms[0]).await, Value::Null);
}

#[tokio::test]
async fn a_name_reaches_all_rooms_where_the_client_hangs_up() {
    const ROOMS: usize = 40;
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let rooms = rooms_of_alice(&server, &alice, ROOMS).await;
    let reached = async || {
        let mut count = 0;
        for room in &rooms {
            count += usize::from(name_in(&server, &alice, room).await == "Al");
        }
        count
    };
    let until = async |least: usize| {
        while reached().await < least {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let path = format!("{V3}/profile/@alice:hs1/displayname");
    tokio::select! {
        biased;
        () = until(1) => {}
        _ = server.put(&path, &alice, json!({ "displayname": "Al" })) => {}
    }
    tokio::time::timeout(std::time::Duration::from_secs(60), until(ROOMS))
        .await
        .expect("all rooms show the name");
}

#[tokio::test]
async fn of_many_changes_at_once_the_last_one_stays() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let rooms = rooms_of_alice(&server, &alice, 20).await;
    let path = format!("{V3}/profile/@alice:hs1");
    let set = async |number: usize| {
        let (field, value) = match number % 2 {
            0 => ("displayname", format!("Al {number}")),
            _ => ("avatar_url", format!("mxc://hs1/{number}")),
        };
        server
            .put(&format!("{path}/{field}"), &alice, json!({ field: value }))
            .await
            .ok();
    };
    futures::future::join_all((0..6).map(set)).await;
    let profile = server.get(&path, &alice).await.ok();
    for room in &rooms {
        let path = format!("{V3}/rooms/{room}/state/m.room.member/@alice:hs1");
        let member = server.get(&path, &alice).await.ok();
        for field in ["displayname", "avatar_url"] {
            assert_eq!(member[field], profile[field], "{member}");
        }
    }
}

#[tokio::test]
async fn account_data_and_tags() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let base = format!("{V3}/user/@alice:hs1");
    for path in ["/account_data/test.key", "/rooms/!room:hs1/account_data/test.key"] {
        let path = format!("{base}{path}");
        server.get(&path, &alice).await.refused(404, "M_NOT_FOUND");
        server
            .put(&path, &alice, json!({ "value": [1, { "a": "b" }] }))
            .await
            .ok();
        assert_eq!(
            server.get(&path, &alice).await.ok(),
            json!({ "value": [1, { "a": "b" }] })
        );
        server
            .put(&path, &alice, json!([]))
            .await
            .refused(400, "M_BAD_JSON");
    }
    for kind in ["m.push_rules", "m.fully_read"] {
        server
            .put(&format!("{base}/account_data/{kind}"), &alice, json!({}))
            .await
            .refused(405, "M_BAD_JSON");
    }
    server
        .get(&format!("{V3}/user/@bob:hs1/account_data/test.key"), &alice)
        .await
        .refused(403, "M_FORBIDDEN");
    server
        .put(
            &format!("{base}/rooms/nonsense/account_data/x"),
            &alice,
            json!({}),
        )
        .await
        .refused(400, "M_INVALID_PARAM");
    let tags = format!("{base}/rooms/!room:hs1/tags");
    server
        .put(
            &format!("{tags}/m.favourite"),
            &alice,
            json!({ "order": 0.5, "x": "y" }),
        )
        .await
        .ok();
    server
        .put(&format!("{tags}/u.work"), &alice, json!({ "order": 1 }))
        .await
        .ok();
    server
        .put(&format!("{tags}/u.bad"), &alice, json!({ "order": "first" }))
        .await
        .refused(400, "M_BAD_JSON");
    let expected = json!({ "tags": { "m.favourite": { "order": 0.5, "x": "y" }, "u.work": { "order": 1 } } });
    assert_eq!(server.get(&tags, &alice).await.ok(), expected);
    server
        .call(
            "DELETE",
            &format!("{tags}/m.favourite"),
            Some(&alice),
            Value::Null,
        )
        .await
        .ok();
    assert_eq!(
        server.get(&tags, &alice).await.ok(),
        json!({ "tags": { "u.work": { "order": 1 } } })
    );
}

#[tokio::test]
async fn push_rules() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let all = format!("{V3}/pushrules/");
    let rules = server.get(&all, &alice).await.ok();
    let master = |rules: &Value| rules["global"]["override"][0].clone();
    assert_eq!(master(&rules)["rule_id"], ".m.rule.master");
    let rule = format!("{all}global/room/!foo:example.com");
    let put = async |path: &str, body: Value| server.put(path, &alice, body).await;
    put(&rule, json!({ "actions": ["dont_notify"] })).await.ok();
    let stored = server.get(&rule, &alice).await.ok();
    assert_eq!(
        (&stored["actions"], &stored["enabled"]),
        (&json!(["dont_notify"]), &json!(true))
    );
    put(&format!("{rule}/enabled"), json!({ "enabled": false }))
        .await
        .ok();
    assert_eq!(
        server.get(&format!("{rule}/enabled"), &alice).await.ok(),
        json!({ "enabled": false })
    );
    put(&format!("{rule}/actions"), json!({ "actions": ["notify"] }))
        .await
        .ok();
    assert_eq!(
        server.get(&format!("{rule}/actions"), &alice).await.ok(),
        json!({ "actions": ["notify"] })
    );
    let underride = format!("{all}global/underride/mine");
    let body =
        json!({ "actions": [], "conditions": [{ "kind": "event_match", "key": "type", "pattern": "m.x" }] });
    put(&underride, body).await.ok();
    let content = format!("{all}global/content");
    put(
        &format!("{content}/a"),
        json!({ "actions": [], "pattern": "cake" }),
    )
    .await
    .ok();
    put(
        &format!("{content}/b?after=a"),
        json!({ "actions": [], "pattern": "pie" }),
    )
    .await
    .ok();
    put(&format!("{content}/c"), json!({ "actions": [] }))
        .await
        .refused(400, "M_MISSING_PARAM");
    put(
        &format!("{content}/c?before=zzz"),
        json!({ "actions": [], "pattern": "x" }),
    )
    .await
    .refused(400, "M_UNKNOWN");
    // A rule that is there moves, also behind the last one.
    let room = format!("{all}global/room");
    for (id, place) in [
        ("!a", ""),
        ("!b", ""),
        ("!b", "?after=!a"),
        ("!b", "?before=!a"),
        ("!b", "?after=!a"),
    ] {
        put(&format!("{room}/{id}{place}"), json!({ "actions": [] }))
            .await
            .ok();
    }
    let listed = server.get(&format!("{room}/"), &alice).await.ok();
    let ids: Vec<&str> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["rule_id"].as_str())
        .collect();
    assert_eq!(ids, ["!a", "!b", "!foo:example.com"]);
    put(&format!("{room}/!c"), json!({ "actions": ["shout"] }))
        .await
        .refused(400, "M_INVALID_PARAM");
    put(&format!("{rule}/actions"), json!({ "actions": [{ "shout": 1 }] }))
        .await
        .refused(400, "M_INVALID_PARAM");
    server
        .get(&format!("{all}global/wrong/"), &alice)
        .await
        .refused(400, "M_INVALID_PARAM");
    for path in [
        "device/x/room/!a",
        "other/",
        "global/room",
        "global/room/!a/other",
    ] {
        server
            .get(&format!("{all}{path}"), &alice)
            .await
            .refused(400, "M_UNRECOGNIZED");
    }
    put(&format!("{all}global/wrong/c"), json!({ "actions": [] }))
        .await
        .refused(400, "M_INVALID_PARAM");
    put(&format!("{all}global/sender/nobody"), json!({ "actions": [] }))
        .await
        .refused(400, "M_INVALID_PARAM");
    put(&format!("{all}global/override/.mine"), json!({ "actions": [] }))
        .await
        .refused(400, "M_INVALID_PARAM");
    let default = format!("{all}global/override/.m.rule.master");
    put(&format!("{default}/enabled"), json!({ "enabled": true }))
        .await
        .ok();
    assert_eq!(master(&server.get(&all, &alice).await.ok())["enabled"], true);
    let delete = async |path: &str| server.call("DELETE", path, Some(&alice), Value::Null).await;
    delete(&default).await.refused(400, "M_INVALID_PARAM");
    delete(&rule).await.ok();
    delete(&rule).await.refused(404, "M_NOT_FOUND");
    server.get(&rule, &alice).await.refused(404, "M_NOT_FOUND");
    server.get(&format!("{all}global"), &alice).await.ok();
}

#[tokio::test]
async fn filters_presence_and_the_rest() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let path = format!("{V3}/user/@alice:hs1/filter");
    let filter = json!({ "room": { "timeline": { "limit": 10 } } });
    let id = server.post(&path, &alice, filter.clone()).await.ok()["filter_id"].clone();
    let stored = format!("{path}/{}", id.as_str().expect("an id"));
    assert_eq!(server.get(&stored, &alice).await.ok(), filter);
    server
        .get(&format!("{path}/none"), &alice)
        .await
        .refused(404, "M_NOT_FOUND");
    server
        .post(&path, &alice, json!({ "room": 1 }))
        .await
        .refused(400, "M_BAD_JSON");
    let status = format!("{V3}/presence/@alice:hs1/status");
    server
        .put(
            &status,
            &alice,
            json!({ "presence": "online", "status_msg": "here" }),
        )
        .await
        .ok();
    let presence = server.get(&status, &alice).await.ok();
    assert_eq!(
        (&presence["presence"], &presence["status_msg"]),
        (&json!("online"), &json!("here"))
    );
    server
        .put(&status, &alice, json!({ "presence": "asleep" }))
        .await
        .refused(400, "M_INVALID_PARAM");
    let openid = format!("{V3}/user/@alice:hs1/openid/request_token");
    let token = server.post(&openid, &alice, json!({})).await.ok();
    assert_eq!(
        (&token["token_type"], &token["matrix_server_name"]),
        (&json!("Bearer"), &json!("hs1"))
    );
    let report = format!("{V3}/users/@alice:hs1/report");
    server
        .post(&report, &alice, json!({ "reason": "rude" }))
        .await
        .ok();
    server
        .post(&report, &alice, json!({}))
        .await
        .refused(400, "M_BAD_JSON");
    let reports = server.app.users.reports().newest(10).expect("reports");
    assert_eq!((reports.len(), reports[0].reason.as_str()), (1, "rude"));
    for (path, expected) in [
        ("/voip/turnServer", json!({})),
        ("/thirdparty/protocols", json!({})),
        ("/account/3pid", json!({ "threepids": [] })),
    ] {
        assert_eq!(server.get(&format!("{V3}{path}"), &alice).await.ok(), expected);
    }
    server
        .post(&format!("{V3}/account/3pid/add"), &alice, json!({}))
        .await
        .refused(403, "M_THREEPID_DENIED");
    let capabilities = server.get(&format!("{V3}/capabilities"), &alice).await.ok();
    assert_eq!(
        capabilities["capabilities"]["m.room_versions"]["available"]["11"],
        "stable"
    );
    let nobody = async |path: &str| server.call("GET", path, None, Value::Null).await;
    nobody(&format!("{V3}/capabilities"))
        .await
        .refused(401, "M_MISSING_TOKEN");
    let versions = nobody("/_matrix/client/versions").await.ok();
    assert_eq!(versions["versions"][0], "r0.6.1");
    assert_eq!(
        versions["versions"].as_array().and_then(|all| all.last()),
        Some(&json!("v1.19"))
    );
    assert!(nobody("/.well-known/matrix/client").await.ok()["m.homeserver"]["base_url"].is_string());
    nobody("/.well-known/matrix/server")
        .await
        .refused(404, "M_NOT_FOUND");
    nobody("/.well-known/matrix/support")
        .await
        .refused(404, "M_NOT_FOUND");
}
