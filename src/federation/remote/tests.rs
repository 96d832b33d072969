use hearth_rooms::{Dance, RemoteFailure, RemoteServers};
use serde_json::json;

use super::*;
use crate::test_world::World;

fn ids() -> (OwnedServerName, ruma::OwnedRoomId, OwnedEventId) {
    (
        "a.example".try_into().unwrap(),
        "!r:a.example".try_into().unwrap(),
        "$e".try_into().unwrap(),
    )
}

#[tokio::test]
async fn older_endpoints_are_tried() {
    let world = World::new();
    let (server, room, id) = ids();
    let remote = world.federation.remote.clone();
    let line = |version: &str, verb: &str| {
        format!("a.example /_matrix/federation/{version}/{verb}/%21r%3Aa.example/%24e")
    };
    let set = |line, status, body| drop(world.net.answers.lock().insert(line, (status, body)));
    let unknown = json!({"errcode": "M_UNRECOGNIZED", "error": "?"});
    for verb in ["send_join", "send_leave", "invite"] {
        let options = if verb == "send_join" {
            "?omit_members=true"
        } else {
            ""
        };
        set(line("v2", verb) + options, 404, unknown.clone());
    }
    let joined = json!([200, {"state": [{"a": 1}], "auth_chain": []}]);
    set(line("v1", "send_join"), 200, joined);
    set(line("v1", "send_leave"), 200, json!([200, {}]));
    set(line("v1", "invite"), 200, json!([200, {"event": {"b": 2}}]));
    let joined = remote.send_join(&server, &room, &id, b"{}").await.unwrap();
    assert_eq!(joined.state[0].get(), r#"{"a":1}"#);
    remote.send_leave(&server, &room, &id, b"{}").await.unwrap();
    let invited = remote
        .invite(&server, &RoomVersionId::V1, &room, &id, b"{}", &[])
        .await;
    assert_eq!(invited.unwrap().get(), r#"{"b":2}"#);
    // Only rooms of the oldest versions can be invited to by the old endpoint.
    let refused = remote
        .invite(&server, &RoomVersionId::V11, &room, &id, b"{}", &[])
        .await;
    assert!(matches!(refused, Err(RemoteFailure::Refused { status: 404, .. })));
    let broken = remote.send_leave(&server, &room, &id, b"{").await;
    assert!(matches!(broken, Err(RemoteFailure::Failed { .. })));
}

#[tokio::test]
async fn a_refusal_is_handed_on_and_a_dead_server_rests() {
    let world = World::new();
    let (server, room, _) = ids();
    let remote = world.federation.remote.clone();
    let user: ruma::OwnedUserId = "@u:us.example".try_into().unwrap();
    let versions = hearth_events::Rules::all().iter();
    let versions: Vec<_> = versions.map(|rules| format!("ver={}", rules.version)).collect();
    let path = format!(
        "a.example /_matrix/federation/v1/make_join/%21r%3Aa.example/%40u%3Aus.example?{}",
        versions.join("&")
    );
    let body = json!({"errcode": "M_UNABLE_TO_AUTHORISE_JOIN", "error": "no", "more": 1});
    world.net.answers.lock().insert(path, (400, body));
    match remote.make(Dance::Join, &server, &room, &user).await {
        Err(RemoteFailure::Refused {
            status,
            errcode,
            body,
            ..
        }) => {
            assert_eq!((status, errcode.as_str()), (400, "M_UNABLE_TO_AUTHORISE_JOIN"));
            assert_eq!(body["more"], 1);
        }
        other => panic!("{other:?}"),
    }
    world.net.answers.lock().clear();
    let before = world.asked();
    let (_, _, id) = ids();
    for _ in 0..3 {
        let gone = remote.state_ids(&server, &room, &id).await;
        assert!(matches!(gone, Err(RemoteFailure::Failed { .. })));
    }
    assert_eq!(world.asked(), before + 1, "it is asked once, then it rests");
    assert!(remote.is_resting(&server));
    // Somebody waits for this.
    assert!(remote.make(Dance::Leave, &server, &room, &user).await.is_err());
    assert_eq!(world.asked(), before + 2, "it is asked all the same");
    assert!(remote.state_ids(&server, &room, &id).await.is_err());
    assert_eq!(world.asked(), before + 2, "it rests for others");
    world.federation.client.seen(&server);
    assert!(remote.state_ids(&server, &room, &id).await.is_err());
    assert_eq!(world.asked(), before + 3, "it was heard of, so it is asked again");
}

#[tokio::test]
async fn pages_are_bounded() {
    let world = World::new();
    let (server, room, id) = ids();
    let long = "x".repeat(EVENT_TEXT_MAX_BYTES);
    let events: Vec<_> = (0..5)
        .map(|number| json!({"n": number}))
        .chain([json!({"n": long})])
        .collect();
    world.answer(
        "a.example",
        "/_matrix/federation/v1/backfill/%21r%3Aa.example?limit=3&v=%24e",
        json!({"pdus": events}),
    );
    world.answer(
        "a.example",
        "/_matrix/federation/v1/event/%24e",
        json!({"pdus": [{"n": long}]}),
    );
    let remote = &world.federation.remote;
    let page = remote
        .backfill(&server, &room, std::slice::from_ref(&id), 3)
        .await
        .unwrap();
    assert_eq!(page.len(), 3);
    assert!(remote.event(&server, &id).await.is_err());
}
