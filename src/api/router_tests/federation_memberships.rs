//! The server-server API, asked by another server: joining, leaving, knocking, being invited.

use hearth_events::Pdu;

use super::federation::{Asked, V1, V2};
use super::federation_events::{json_of, kinds, list, signed};
use super::*;

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
    // Signed with a key that the server does not have.
    let mut forged = json_of(&join);
    forged["signatures"] = json!({ "other": { "ed25519:odd": hearth_events::base64_encode(&[1; 64]) } });
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

        for signatures in [
            json!({}),
            json!({ "other": { "ed25519:odd": hearth_events::base64_encode(&[1; 64]) } }),
            json!({ "other": { "ed25519:other": hearth_events::base64_encode(&[1; 64]) } }),
        ] {
            let mut forged = body(&event, json!([json_of(&create)]));
            forged["event"]["signatures"] = signatures;
            let refused = asked.ask("PUT", &path, forged).await;
            refused.refused(400, "M_INVALID_PARAM");
        }

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

/// An invitation by eve of the other server into a room of it.
async fn invited(asked: &Asked, target: &str, number: usize) -> Answer {
    let event = json!({
        "type": "m.room.member", "state_key": target, "sender": "@eve:other", "room_id": format!("!r{number}:other"),
        "depth": 9, "origin_server_ts": 2, "content": { "membership": "invite" }, "prev_events": [], "auth_events": [],
    });
    let event = signed(asked, "10", event);
    let path = format!("{V2}/invite/{}/{}", event.room_id(), event.event_id);
    let body = json!({ "room_version": "10", "event": json_of(&event), "invite_room_state": [] });
    asked.ask("PUT", &path, body).await
}

#[tokio::test]
async fn invitations_are_limited_by_server_and_by_user() {
    let configure = |config: &mut Config| {
        config.rate_limits = true;
        config.rate_limit.inviting_server.burst = 7;
        config.rate_limit.invited_user.burst = 2;
    };
    let asked = Asked::with(configure, super::appservices::appservices());
    for name in ["alice", "bob"] {
        asked.server.user(name, "A").await;
    }
    invited(&asked, "@alice:hs1", 1).await.ok();
    invited(&asked, "@alice:hs1", 2).await.ok();
    let refused = invited(&asked, "@alice:hs1", 3).await;
    assert!(refused.headers.contains_key("retry-after"));
    let json = refused.refused(429, "M_LIMIT_EXCEEDED");
    let wait = json["retry_after_ms"].as_u64().expect("a time");
    // Another user has an allowance of his own.
    invited(&asked, "@bob:hs1", 4).await.ok();
    // A bridge that is not limited has as many rooms as its users.
    let whoami = format!("{V3}/account/whoami");
    asked.server.get(&whoami, "bridge-token").await.ok();
    for number in 5..8 {
        invited(&asked, "@bridge:hs1", number).await.ok();
    }
    // That was the last of the server's allowance, whomever it invites.
    let refused = invited(&asked, "@bob:hs1", 8).await;
    assert!(refused.headers.contains_key("retry-after"));
    refused.refused(429, "M_LIMIT_EXCEEDED");
    let path = format!("{V1}/exchange_third_party_invite/!r:hs1");
    let exchange = json!({
        "type": "m.room.member", "room_id": "!r:hs1", "sender": "@alice:hs1", "state_key": "@eve:other",
        "content": { "membership": "invite", "third_party_invite": {} },
    });
    asked
        .ask("PUT", &path, exchange.clone())
        .await
        .refused(429, "M_LIMIT_EXCEEDED");
    asked.server.clock.advance(wait);
    invited(&asked, "@alice:hs1", 9).await.ok();
    asked
        .ask("PUT", &path, exchange)
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn without_rate_limits_anybody_is_invited_as_often_as_others_like() {
    let asked = Asked::with(
        |config| {
            config.rate_limit.inviting_server.burst = 1;
            config.rate_limit.invited_user.burst = 1;
        },
        Registrations::default(),
    );
    asked.server.user("alice", "A").await;
    for number in 0..5 {
        invited(&asked, "@alice:hs1", number).await.ok();
    }
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
