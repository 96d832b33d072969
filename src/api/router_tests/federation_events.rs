//! The server-server API, asked by another server: joining, leaving, knocking, being invited, and reading rooms.

use hearth_events::{Pdu, Rules};

use super::federation::{Asked, V1, V2};
use super::*;

fn rules(version: &str) -> &'static Rules {
    let version = RoomVersionId::try_from(version).expect("a version");
    hearth_events::rules(&version).expect("a known version")
}

/// An event of the other server: hashed and signed.
fn signed(asked: &Asked, version: &str, mut event: Value) -> Pdu {
    let rules = rules(version);
    event.as_object_mut().expect("an object").remove("signatures");
    use sha2::Digest;
    let hash_of = |event: &Value| -> [u8; 32] {
        let text = hearth_events::canonical::to_bytes(event, false).expect("JSON");
        sha2::Sha256::digest(&text).into()
    };
    if rules.explicit_event_ids() {
        let id = hearth_events::base64_encode(&hash_of(&event)[..12]).replace(['/', '+'], "_");
        event["event_id"] = json!(format!("${id}:other"));
    }
    let hash = hash_of(&event);
    event["hashes"] = json!({ "sha256": hearth_events::base64_encode(&hash) });
    let pdu = Pdu::parse(rules, event.to_string().as_bytes()).expect("an event");
    let server = ruma::server_name!("other");
    pdu.countersign(rules, &asked.key, server).expect("a signature")
}

fn json_of(pdu: &Pdu) -> Value {
    serde_json::from_slice(&pdu.json).expect("JSON")
}

impl Asked {
    async fn make(&self, what: &str, room: &str, version: &str) -> Answer {
        self.get(&format!("{V1}/make_{what}/{room}/@eve:other?ver=1&ver={version}"))
            .await
    }

    /// The event that follows from a template.
    async fn made(&self, what: &str, room: &str, version: &str) -> Pdu {
        let made = self.make(what, room, version).await.ok();
        assert_eq!(made["room_version"], version);
        signed(self, version, made["event"].clone())
    }

    async fn put(&self, path: &str, room: &str, pdu: &Pdu) -> Answer {
        let id = pdu.event_id.as_str().replace('/', "%2F");
        self.ask("PUT", &format!("{path}/{room}/{id}"), json_of(pdu))
            .await
    }

    async fn join(&self, room: &str, version: &str) -> Value {
        let join = self.made("join", room, version).await;
        self.put(&format!("{V2}/send_join"), room, &join).await.ok()
    }

    async fn say(&self, alice: &str, room: &str, text: &str) -> String {
        let path = format!("{V3}/rooms/{room}/send/m.room.message/{text}");
        let body = json!({ "msgtype": "m.text", "body": text });
        let sent = self.server.put(&path, alice, body).await.ok();
        sent["event_id"].as_str().expect("an event id").to_owned()
    }
}

fn list<'a>(answer: &'a Value, name: &str) -> &'a Vec<Value> {
    answer[name]
        .as_array()
        .unwrap_or_else(|| panic!("no list {name} in {answer}"))
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap_or_default())
        .collect()
}

#[tokio::test]
async fn joining_in_every_form() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    for version in ["1", "3", "10", "12"] {
        let room = asked.room(&alice, json!({ "room_version": version })).await;
        let join = asked.made("join", &room, version).await;
        let answer = asked.put(&format!("{V1}/send_join"), &room, &join).await.ok();
        assert_eq!(answer[0], 200, "{version}");
        assert!(kinds(list(&answer[1], "state")).contains(&"m.room.create"));
        assert!(kinds(list(&answer[1], "auth_chain")).contains(&"m.room.create"));
        // The same again is answered again.
        let id = join.event_id.as_str().replace('/', "%2F");
        let path = format!("{V2}/send_join/{room}/{id}?omit_members=true");
        let answer = asked.ask("PUT", &path, json_of(&join)).await.ok();
        assert_eq!(answer["members_omitted"], true);
        assert_eq!(answer["event"], json_of(&join));
        assert_eq!(
            list(&answer, "servers_in_room").len(),
            2,
            "the join was there before"
        );
        assert!(list(&answer, "auth_chain").is_empty());
        let members = asked
            .server
            .get(&format!("{V3}/rooms/{room}/joined_members"), &alice)
            .await
            .ok();
        assert!(members["joined"].get("@eve:other").is_some(), "{version}");
        // Leaving works the same way.
        let leave = asked.made("leave", &room, version).await;
        let answer = asked.put(&format!("{V2}/send_leave"), &room, &leave).await.ok();
        assert_eq!(answer, json!({}));
        let answer = asked.put(&format!("{V1}/send_leave"), &room, &leave).await.ok();
        assert_eq!(answer, json!([200, {}]));
        asked
            .make("leave", &room, version)
            .await
            .refused(403, "M_FORBIDDEN");
    }
}

#[tokio::test]
async fn what_is_no_join_is_refused() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    let room = asked.room(&alice, json!({})).await;
    let made = asked.make("join", &room, "12").await.ok()["event"].clone();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut event = made.clone();
        change(&mut event);
        signed(&asked, "12", event)
    };
    let path = format!("{V2}/send_join");
    for event in [
        changed(&|event| event["type"] = json!("m.room.message")),
        changed(&|event| event["content"]["membership"] = json!("leave")),
        changed(&|event| event["state_key"] = json!("@doris:other")),
        changed(&|event| event["sender"] = json!("@eve:elsewhere")),
        changed(&|event| drop(event.as_object_mut().map(|event| event.remove("state_key")))),
    ] {
        asked
            .put(&path, &room, &event)
            .await
            .refused(400, "M_INVALID_PARAM");
    }
    // The path names another event.
    let join = signed(&asked, "12", made.clone());
    let answer = asked
        .ask("PUT", &format!("{path}/{room}/$other"), json_of(&join))
        .await;
    answer.refused(400, "M_INVALID_PARAM");
    // Signed with another key than the server's.
    let mut forged = json_of(&join);
    forged["signatures"]["other"]["ed25519:other"] = json!(hearth_events::base64_encode(&[1; 64]));
    let id = join.event_id.as_str();
    let answer = asked.ask("PUT", &format!("{path}/{room}/{id}"), forged).await;
    answer.refused(400, "M_INVALID_PARAM");
    for (user, ver, status, errcode) in [
        ("@eve:elsewhere", "12", 403, "M_FORBIDDEN"),
        ("@eve:other", "9", 400, "M_INCOMPATIBLE_ROOM_VERSION"),
    ] {
        let answer = asked
            .get(&format!("{V1}/make_join/{room}/{user}?ver={ver}"))
            .await;
        let body = answer.refused(status, errcode);
        if status == 400 {
            assert_eq!(body["room_version"], "12");
        }
    }
    let answer = asked.get(&format!("{V1}/make_join/{room}/@eve:other")).await;
    answer.refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
    asked
        .make("join", "!unknown:hs1", "12")
        .await
        .refused(404, "M_NOT_FOUND");
    // A ban between the template and the join.
    let ban = json!({ "user_id": "@eve:other" });
    asked
        .server
        .post(&format!("{V3}/rooms/{room}/ban"), &alice, ban)
        .await
        .ok();
    asked.put(&path, &room, &join).await.refused(403, "M_FORBIDDEN");
    asked.make("join", &room, "12").await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn reading_a_room() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    let visibility =
        json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
    let room = asked.room(&alice, json!({ "initial_state": [visibility] })).await;
    let before = asked.say(&alice, &room, "before").await;
    let one = |path: &str| format!("{V1}/{path}");
    // Not in the room.
    for path in [
        format!("event/{before}"),
        format!("state/{room}?event_id={before}"),
        format!("state_ids/{room}?event_id={before}"),
        format!("event_auth/{room}/{before}"),
        format!("backfill/{room}?v={before}&limit=5"),
        format!("timestamp_to_event/{room}?ts=1&dir=f"),
    ] {
        asked.get(&one(&path)).await.refused(403, "M_FORBIDDEN");
    }
    let joined = asked.join(&room, "12").await;
    let join = Pdu::parse(rules("12"), joined["event"].to_string().as_bytes()).expect("an event");
    let after = asked.say(&alice, &room, "after").await;

    let event = asked.get(&one(&format!("event/{after}"))).await.ok();
    assert_eq!(event["origin"], "hs1");
    assert_eq!(event["pdus"][0]["content"]["body"], "after");
    let hidden = asked.get(&one(&format!("event/{before}"))).await.ok();
    assert_eq!(hidden["pdus"][0]["content"], json!({}));
    asked
        .get(&one("event/$unknown"))
        .await
        .refused(404, "M_NOT_FOUND");

    let state = asked
        .get(&one(&format!("state/{room}?event_id={after}")))
        .await
        .ok();
    let ids = asked
        .get(&one(&format!("state_ids/{room}?event_id={after}")))
        .await
        .ok();
    assert_eq!(list(&state, "pdus").len(), list(&ids, "pdu_ids").len());
    assert_eq!(
        list(&state, "auth_chain").len(),
        list(&ids, "auth_chain_ids").len()
    );
    assert!(list(&ids, "pdu_ids").contains(&json!(join.event_id)));
    let state = asked
        .get(&one(&format!("state_ids/{room}?event_id={}", join.event_id)))
        .await
        .ok();
    assert!(
        !list(&state, "pdu_ids").contains(&json!(join.event_id)),
        "the state before it"
    );
    asked
        .get(&one(&format!("state/{room}?event_id=$unknown")))
        .await
        .refused(404, "M_NOT_FOUND");
    asked
        .get(&one(&format!("state/{room}")))
        .await
        .refused(400, "M_MISSING_PARAM");

    let chain = asked
        .get(&one(&format!("event_auth/{room}/{}", join.event_id)))
        .await
        .ok();
    let mut found = kinds(list(&chain, "auth_chain"));
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "m.room.create",
            "m.room.join_rules",
            "m.room.member",
            "m.room.power_levels"
        ]
    );

    let page = asked
        .get(&one(&format!("backfill/{room}?v={after}&limit=3")))
        .await
        .ok();
    assert_eq!(
        kinds(list(&page, "pdus")),
        ["m.room.message", "m.room.member", "m.room.message"]
    );
    assert_eq!(page["pdus"][0]["content"]["body"], "after");
    assert_eq!(page["pdus"][2]["content"], json!({}), "from before the join");

    let body = json!({ "earliest_events": [before], "latest_events": [after], "limit": 10, "min_depth": 0 });
    let missing = asked
        .ask("POST", &one(&format!("get_missing_events/{room}")), body)
        .await
        .ok();
    assert_eq!(missing, json!({ "events": [joined["event"]] }));
    let path = one(&format!("get_missing_events/{room}"));
    asked
        .ask("POST", &path, json!({}))
        .await
        .refused(400, "M_BAD_JSON");

    let near = asked
        .get(&one(&format!("timestamp_to_event/{room}?ts=9999999999999&dir=b")))
        .await
        .ok();
    assert_eq!(near["event_id"], after.as_str());
    let first = asked
        .get(&one(&format!("timestamp_to_event/{room}?ts=0&dir=f")))
        .await
        .ok();
    // Before there was a rule, members could see everything.
    assert_eq!(first["event_id"], room.replacen('!', "$", 1));
    asked
        .get(&one(&format!("timestamp_to_event/{room}?ts=9999999999999&dir=f")))
        .await
        .refused(404, "M_NOT_FOUND");
    asked
        .get(&one(&format!("timestamp_to_event/{room}?ts=1&dir=x")))
        .await
        .refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn an_access_control_list_keeps_a_server_out() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    let room = asked.room(&alice, json!({})).await;
    asked.join(&room, "12").await;
    let last = asked.say(&alice, &room, "last").await;
    let acl = json!({ "allow": ["*"], "deny": ["oth*"] });
    let path = format!("{V3}/rooms/{room}/state/m.room.server_acl/");
    asked.server.put(&path, &alice, acl).await.ok();
    for path in [
        format!("make_join/{room}/@eve:other?ver=12"),
        format!("make_leave/{room}/@eve:other"),
        format!("make_knock/{room}/@eve:other?ver=12"),
        format!("event/{last}"),
        format!("state/{room}?event_id={last}"),
        format!("state_ids/{room}?event_id={last}"),
        format!("event_auth/{room}/{last}"),
        format!("backfill/{room}?v={last}&limit=5"),
    ] {
        asked
            .get(&format!("{V1}/{path}"))
            .await
            .refused(403, "M_FORBIDDEN");
    }
    let missing = json!({ "earliest_events": [], "latest_events": [last] });
    let path = format!("{V1}/get_missing_events/{room}");
    asked
        .ask("POST", &path, missing)
        .await
        .refused(403, "M_FORBIDDEN");
    for path in [
        "v1/send_join",
        "v2/send_join",
        "v1/send_leave",
        "v2/send_leave",
        "v1/send_knock",
    ] {
        let path = format!("/_matrix/federation/{path}/{room}/$x");
        asked
            .ask("PUT", &path, json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
    }
    let invite = json!({ "room_version": "12", "event": { "state_key": "@alice:hs1" } });
    let path = format!("{V2}/invite/{room}/$x");
    asked.ask("PUT", &path, invite).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn knocking() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let room = asked
        .room(&alice, json!({ "name": "Closed", "initial_state": [rule] }))
        .await;
    asked.make("join", &room, "12").await.refused(403, "M_FORBIDDEN");
    let knock = asked.made("knock", &room, "12").await;
    let answer = asked.put(&format!("{V1}/send_knock"), &room, &knock).await.ok();
    let shown = kinds(list(&answer, "knock_room_state"));
    assert!(
        shown.contains(&"m.room.create") && shown.contains(&"m.room.name"),
        "{shown:?}"
    );
    assert!(
        answer["knock_room_state"][0]["signatures"].is_object(),
        "whole events"
    );
    let state = format!("{V3}/rooms/{room}/state/m.room.member/@eve:other");
    assert_eq!(asked.server.get(&state, &alice).await.ok()["membership"], "knock");
    let join = asked.put(&format!("{V2}/send_join"), &room, &knock).await;
    join.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn invitations() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    // A room of the other server.
    for version in ["1", "10", "12"] {
        let mut create = json!({
            "type": "m.room.create", "state_key": "", "sender": "@eve:other", "depth": 1, "origin_server_ts": 1,
            "content": { "room_version": version, "creator": "@eve:other" }, "prev_events": [], "auth_events": [],
        });
        if version != "12" {
            create["room_id"] = json!("!there:other");
        }
        let create = signed(&asked, version, create);
        let room = create.room_id().to_string();
        let invite = |target: &str| {
            let event = json!({
                "type": "m.room.member", "state_key": target, "sender": "@eve:other", "room_id": room, "depth": 9,
                "origin_server_ts": 2, "content": { "membership": "invite" }, "prev_events": [], "auth_events": [],
            });
            signed(&asked, version, event)
        };
        let event = invite("@alice:hs1");
        let path = format!(
            "{V2}/invite/{room}/{}",
            event.event_id.as_str().replace('/', "%2F")
        );
        let body = |event: &Pdu, state: Value| json!({ "room_version": version, "event": json_of(event), "invite_room_state": state });
        let answer = asked
            .ask("PUT", &path, body(&event, json!([json_of(&create)])))
            .await
            .ok();
        assert!(answer["event"]["signatures"]["hs1"].is_object(), "{version}");
        assert!(answer["event"]["signatures"]["other"].is_object());
        let sync = asked.server.get(&format!("{V3}/sync"), &alice).await.ok();
        let shown = sync["rooms"]["invite"][&room]["invite_state"]["events"]
            .as_array()
            .cloned();
        let shown = shown.unwrap_or_else(|| panic!("no invitation in {sync}"));
        assert!(kinds(&shown).contains(&"m.room.create"));
        assert!(
            shown.iter().all(|event| event.get("signatures").is_none()),
            "{shown:?}"
        );

        let nobody = invite("@nobody:hs1");
        let path = |event: &Pdu| {
            format!(
                "{V2}/invite/{room}/{}",
                event.event_id.as_str().replace('/', "%2F")
            )
        };
        let state = || json!([json_of(&create)]);
        asked
            .ask("PUT", &path(&nobody), body(&nobody, state()))
            .await
            .refused(404, "M_NOT_FOUND");
        let foreign = invite("@alice:elsewhere");
        asked
            .ask("PUT", &path(&foreign), body(&foreign, state()))
            .await
            .refused(400, "M_INVALID_PARAM");
        if version == "12" {
            asked
                .ask("PUT", &path(&event), body(&event, json!([])))
                .await
                .refused(400, "M_INVALID_PARAM");
            let mut other = json_of(&create);
            other["content"]["x"] = json!(1);
            asked
                .ask("PUT", &path(&event), body(&event, json!([other])))
                .await
                .refused(400, "M_INVALID_PARAM");
            let stripped =
                json!({ "type": "m.room.name", "state_key": "", "sender": "@eve:other", "content": {} });
            asked
                .ask(
                    "PUT",
                    &path(&event),
                    body(&event, json!([json_of(&create), stripped])),
                )
                .await
                .refused(400, "M_INVALID_PARAM");
        }
        let mut unknown = body(&event, state());
        unknown["room_version"] = json!("org.example.odd");
        let refused = asked.ask("PUT", &path(&event), unknown).await;
        refused.refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
        if version == "1" {
            let mut event = json_of(&event);
            event["unsigned"] = json!({ "invite_room_state": [json_of(&create)] });
            let path = path(&invite("@alice:hs1")).replace("/v2/", "/v1/");
            let answer = asked.ask("PUT", &path, event).await.ok();
            assert_eq!(answer[0], 200);
            assert!(answer[1]["event"]["signatures"]["hs1"].is_object());
        }
    }
    let bob = asked.server.user("bob", "B").await;
    let block = json!({ "default_action": "block" });
    let path = format!("{V3}/user/@bob:hs1/account_data/m.invite_permission_config");
    asked.server.put(&path, &bob, block).await.ok();
    let body = json!({ "room_version": "10", "event": { "sender": "@x:other", "state_key": "@bob:hs1" } });
    let path = format!("{V2}/invite/!there:other/$x");
    asked
        .ask("PUT", &path, body)
        .await
        .refused(403, "M_INVITE_BLOCKED");
}

#[tokio::test]
async fn restricted_rooms() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    let space = asked.room(&alice, json!({})).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": space }]);
    let rule =
        json!({ "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": allow } });
    let room = asked.room(&alice, json!({ "initial_state": [rule] })).await;
    asked.make("join", &room, "12").await.refused(403, "M_FORBIDDEN");
    asked.join(&space, "12").await;
    let join = asked.made("join", &room, "12").await;
    assert_eq!(
        json_of(&join)["content"]["join_authorised_via_users_server"],
        "@alice:hs1"
    );
    let answer = asked.put(&format!("{V2}/send_join"), &room, &join).await.ok();
    assert!(
        answer["event"]["signatures"]["hs1"].is_object(),
        "the server vouches for it"
    );
    assert_eq!(answer["members_omitted"], false);
}

#[tokio::test]
async fn transactions() {
    let asked = Asked::new();
    let path = format!("{V1}/send/1");
    let transaction = json!({ "origin": "other", "origin_server_ts": 1, "pdus": [], "edus": [] });
    let answer = asked.ask("PUT", &path, transaction.clone()).await.ok();
    assert_eq!(answer, json!({ "pdus": {} }));
    let answer = asked.ask("PUT", &path, transaction).await.ok();
    assert_eq!(answer, json!({ "pdus": {} }), "the same again");
    asked
        .ask("PUT", &path, json!([]))
        .await
        .refused(400, "M_BAD_JSON");
    let many = json!({ "origin": "other", "origin_server_ts": 1, "pdus": vec![json!({}); 51] });
    asked
        .ask("PUT", &format!("{V1}/send/2"), many)
        .await
        .refused(400, "M_BAD_JSON");
    let long = format!("{V1}/send/{}", "x".repeat(300));
    asked
        .ask("PUT", &long, json!({ "pdus": [] }))
        .await
        .refused(400, "M_INVALID_PARAM");
}
