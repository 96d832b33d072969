//! The server-server API, asked by another server: reading rooms, access control lists, transactions.

use hearth_events::{Pdu, Rules};

use super::federation::{Asked, V1, V2};
use super::*;

fn rules(version: &str) -> &'static Rules {
    let version = RoomVersionId::try_from(version).expect("a version");
    hearth_events::rules(&version).expect("a known version")
}

/// An event of the other server: hashed and signed.
pub(super) fn signed(asked: &Asked, version: &str, mut event: Value) -> Pdu {
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

pub(super) fn json_of(pdu: &Pdu) -> Value {
    serde_json::from_slice(&pdu.json).expect("JSON")
}

impl Asked {
    pub(super) async fn make(&self, what: &str, room: &str, version: &str) -> Answer {
        self.get(&format!("{V1}/make_{what}/{room}/@eve:other?ver=1&ver={version}"))
            .await
    }

    /// The event that follows from a template.
    pub(super) async fn made(&self, what: &str, room: &str, version: &str) -> Pdu {
        let made = self.make(what, room, version).await.ok();
        assert_eq!(made["room_version"], version);
        signed(self, version, made["event"].clone())
    }

    pub(super) async fn put(&self, path: &str, room: &str, pdu: &Pdu) -> Answer {
        let id = pdu.event_id.as_str().replace('/', "%2F");
        self.ask("PUT", &format!("{path}/{room}/{id}"), json_of(pdu))
            .await
    }

    pub(super) async fn join(&self, room: &str, version: &str) -> Value {
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

pub(super) fn list<'a>(answer: &'a Value, name: &str) -> &'a Vec<Value> {
    answer[name]
        .as_array()
        .unwrap_or_else(|| panic!("no list {name} in {answer}"))
}

pub(super) fn kinds(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap_or_default())
        .collect()
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

/// A transaction that is refused comes back for ever, with all that waits behind it.
#[tokio::test]
async fn what_is_wrong_with_an_event_is_no_matter_of_its_transaction() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    let room = asked.room(&alice, json!({})).await;
    let joined = asked.join(&room, "12").await;
    assert!(joined["event"].is_object());
    let good = json_of(&asked.made("leave", &room, "12").await);
    let deep = format!("{}{}", "[".repeat(3_000), "]".repeat(3_000));
    for (number, bad) in [deep.as_str(), "18446744073709551617", "1e999", r#""\ud800""#]
        .iter()
        .enumerate()
    {
        let event =
            format!(r#"{{"content":{{"x":{bad}}},"room_id":"{room}","sender":"@eve:other","type":"m.x"}}"#);
        let edu = format!(r#"{{"content":{{"x":{bad}}},"edu_type":"m.x"}}"#);
        let body =
            format!(r#"{{"edus":[{edu}],"origin":"other","origin_server_ts":1,"pdus":[{event},{good}]}}"#);
        let path = format!("{V1}/send/{number}");
        let answer = asked.ask_text("PUT", &path, body).await.ok();
        let mut outcomes: Vec<bool> = answer["pdus"]
            .as_object()
            .expect("outcomes")
            .values()
            .map(|outcome| outcome.get("error").is_some())
            .collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, [false, true], "{bad}: {answer}");
    }
    let room_id = ruma::OwnedRoomId::try_from(room.as_str()).expect("a room id");
    let found = asked
        .server
        .app
        .rooms
        .get(&room_id)
        .expect("it is read")
        .expect("the room");
    for _ in 0..100 {
        let eve = ruma::user_id!("@eve:other");
        if found.membership(eve).expect("it is read") == hearth_rooms::Membership::Leave {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the good event did not arrive");
}

/// JSON of so many levels.
fn nested(levels: usize) -> Value {
    let text = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    serde_json::from_str(&text).expect("JSON")
}

/// Events of other servers may be nested as deep as JSON is read. Told inside of others they would be deeper, and no page with
/// them could be read.
#[tokio::test]
async fn deep_events_spoil_no_page_that_tells_of_them() {
    let asked = Asked::new();
    let (server, alice) = (&asked.server, asked.server.user("alice", "A").await);
    let levels = json!({ "state_default": 0, "events": {} });
    let room_id = asked
        .room(&alice, json!({ "power_level_content_override": levels }))
        .await;
    asked.join(&room_id, "12").await;
    let root = asked.say(&alice, &room_id, "root").await;
    let id = ruma::OwnedRoomId::try_from(room_id.as_str()).expect("a room id");
    let room = server.app.rooms.get(&id).expect("it is read").expect("the room");
    let eve_sends = async |kind: &str, state_key: Option<&str>, content: Value| {
        let tips = room.tips().expect("they are read");
        let authorizes = |kind: &str, key: &str| {
            let event = room.state(kind, key).expect("it is read").expect("it is there");
            event.id().to_string()
        };
        let mut event = json!({
            "type": kind, "room_id": room_id, "sender": "@eve:other", "content": content,
            "origin_server_ts": 1_700_000_000_000_u64,
            "depth": tips.iter().map(|tip| tip.pdu.depth()).max().unwrap_or_default() + 1,
            "prev_events": tips.iter().map(|tip| tip.id().to_string()).collect::<Vec<_>>(),
            "auth_events": [authorizes("m.room.power_levels", ""), authorizes("m.room.member", "@eve:other")],
        });
        if let Some(state_key) = state_key {
            event["state_key"] = json!(state_key);
        }
        let pdu = signed(&asked, "12", event);
        let origin = ruma::server_name!("other");
        let received = room.receive(origin, &pdu.json).await.expect("it is judged");
        assert_eq!(received, hearth_rooms::Received::Accepted);
        pdu.event_id.to_string()
    };
    let deep = nested(125);
    let related = |rel_type: &str, event: &str| {
        json!({ "msgtype": "m.text", "body": "b", "deep": deep, "m.new_content": {},
            "m.relates_to": { "rel_type": rel_type, "event_id": event } })
    };
    eve_sends("m.room.message", None, related("m.thread", &root)).await;
    let said = eve_sends(
        "m.room.message",
        None,
        json!({ "msgtype": "m.text", "body": "a" }),
    )
    .await;
    eve_sends("m.room.message", None, related("m.replace", &said)).await;
    let gone = eve_sends("m.room.message", None, json!({ "body": "gone" })).await;
    eve_sends("m.room.redaction", None, json!({ "redacts": gone, "deep": deep })).await;
    for more in [0, 1] {
        eve_sends(
            "org.example.state",
            Some(""),
            json!({ "deep": deep, "more": more }),
        )
        .await;
    }

    let fields = "%7B%22event_fields%22:%5B%22content%22%5D%7D";
    for path in [
        format!("v3/rooms/{room_id}/messages?dir=b&limit=50"),
        format!("v3/rooms/{room_id}/context/{root}?limit=50"),
        format!("v3/rooms/{room_id}/state"),
        format!("v3/rooms/{room_id}/initialSync?limit=50"),
        format!("v1/rooms/{room_id}/threads"),
        format!("v1/rooms/{room_id}/relations/{root}"),
        "v3/notifications".to_owned(),
        "v3/initialSync?limit=50".to_owned(),
        "v3/sync".to_owned(),
        format!("v3/sync?filter={fields}"),
    ] {
        let answer = server.get(&format!("/_matrix/client/{path}"), &alice).await;
        assert_eq!(
            answer.status,
            200,
            "{path}: {}",
            String::from_utf8_lossy(&answer.body)
        );
    }
    let told_with = async |event: &str| {
        let path = format!("{V3}/rooms/{room_id}/event/{event}");
        server.get(&path, &alice).await.ok()["unsigned"].take()
    };
    let thread = &told_with(&root).await["m.relations"]["m.thread"];
    assert_eq!(
        (&thread["count"], &thread["latest_event"]["content"]),
        (&json!(1), &json!({}))
    );
    assert_eq!(told_with(&said).await.get("m.relations"), None);
    let because = &told_with(&gone).await["redacted_because"];
    assert_eq!(because["content"], json!({ "redacts": gone }));
}
