//! Redactions that are here before the events that they redact.

use hearth_events::Pdu;
use hearth_testkit::encode;
use ruma::OwnedEventId;
use serde_json::{Value, json};

use super::Stage;
use super::peer::{Answer, json_of};

/// Something of mallory that relates to an event.
fn related(stage: &Stage, rel_type: &str, to: &str, after: &Pdu) -> Pdu {
    let content = json!({ "msgtype": "m.text", "body": "bad words",
        "m.relates_to": { "rel_type": rel_type, "event_id": to } });
    let prev = [after.event_id.clone()];
    let (known, peer) = (&stage.known, &stage.peer);
    known.message_of(peer, &content, &prev, after.depth() + 1)
}

async fn event(stage: &Stage, id: &str) -> Value {
    stage.ann.event(&stage.room_id, id).await.ok()
}

/// An event that comes redacted says nothing of others any more: it is counted in no thread and bundled with nothing.
#[tokio::test(start_paused = true)]
async fn what_comes_redacted_relates_to_nothing() {
    let stage = Stage::new("10").await;
    let (known, peer) = (&stage.known, &stage.peer);
    let roots = [
        stage.ann.say(&stage.room_id, "a thread?").await,
        stage.ann.say(&stage.room_id, "a reference?").await,
    ];
    let reply = related(&stage, "m.thread", &roots[0], &known.join);
    let reference = related(&stage, "m.reference", &roots[1], &reply);
    let mut after = known.join.clone();
    for (txn, target) in [("t1", &reply), ("t2", &reference)] {
        let prev = [after.event_id.clone()];
        after = known.redaction(peer, "", &target.event_id, &prev, after.depth() + 1);
        peer.send("hs1", txn, &[json_of(&after)]).await;
    }
    stage.settle().await;
    peer.send("hs1", "t3", &[json_of(&reply), json_of(&reference)])
        .await;
    stage.settle().await;
    for late in [&reply, &reference] {
        let late = event(&stage, late.event_id.as_str()).await;
        assert_eq!(late["content"], json!({}), "{late}");
        assert!(late["unsigned"]["redacted_because"].is_object(), "{late}");
    }
    for root in &roots {
        let shown = event(&stage, root).await;
        assert_eq!(shown["unsigned"].get("m.relations"), None, "{shown}");
        let path = format!(
            "/_matrix/client/v1/rooms/{}/relations/{}",
            encode(&stage.room_id),
            encode(root)
        );
        let related = stage.ann.get(&path).await.ok();
        assert_eq!(related["chunk"], json!([]));
    }
    let path = format!("/_matrix/client/v1/rooms/{}/threads", encode(&stage.room_id));
    assert_eq!(stage.ann.get(&path).await.ok()["chunk"], json!([]));
}

/// What soft-failed was never counted in its thread, and does not go from it when it is redacted.
#[tokio::test(start_paused = true)]
async fn a_redaction_of_what_is_not_shown_changes_no_thread() {
    let stage = Stage::new("10").await;
    let (known, peer) = (&stage.known, &stage.peer);
    let root = stage.ann.say(&stage.room_id, "a thread").await;
    let content = json!({ "msgtype": "m.text", "body": "in it",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    stage.ann.send(&stage.room_id, "m.room.message", content).await;
    let ban = json!({ "user_id": known.user });
    stage.ann.act(&stage.room_id, "ban", ban).await.ok();
    let reply = related(&stage, "m.thread", &root, &known.join);
    peer.send("hs1", "t1", &[json_of(&reply)]).await;
    stage.settle().await;
    let stored = stage.room().event_by_id(&reply.event_id).expect("it is read");
    assert!(
        stored
            .expect("it is kept")
            .header
            .flags
            .has(hearth_rooms::Flags::SOFT_FAILED)
    );
    stage.ann.redact(&stage.room_id, reply.event_id.as_str()).await;
    let shown = event(&stage, &root).await;
    assert_eq!(
        shown["unsigned"]["m.relations"]["m.thread"]["count"], 1,
        "{shown}"
    );
}

/// State that was redacted before it came as part of a state.
#[tokio::test(start_paused = true)]
async fn state_that_was_redacted_before_it_came_shows_nothing() {
    let stage = Stage::new("10").await;
    let (known, peer) = (&stage.known, &stage.peer);
    let (start, depth) = (known.join.event_id.clone(), known.join.depth());
    let auth = known.auth();
    let draft = hearth_events::Draft {
        room_id: Some(&known.id),
        sender: &known.user,
        kind: "m.room.topic",
        state_key: Some(""),
        content: br#"{"topic":"bad words"}"#,
        origin_server_ts: super::peer::NOW_MS,
        depth: depth + 1,
        prev_events: std::slice::from_ref(&start),
        auth_events: &auth,
        redacts: None,
    };
    let topic = peer.sign(known.rules, &draft);
    let redaction = known.redaction(peer, "", &topic.event_id, std::slice::from_ref(&start), depth + 1);
    peer.send("hs1", "t1", &[json_of(&redaction)]).await;
    stage.settle().await;
    // An event after it that is not here, so that the state is asked for.
    let between = known.message(peer, "between", std::slice::from_ref(&topic.event_id), depth + 2);
    let last = known.message(peer, "last", std::slice::from_ref(&between.event_id), depth + 3);
    let place = encode(&stage.room_id);
    let refuse = |_: &str, _: &Value| (500, json!({}));
    peer.says(
        &format!("/_matrix/federation/v1/get_missing_events/{place}"),
        Answer::Judged(std::sync::Arc::new(refuse)),
    );
    let mut state: Vec<&OwnedEventId> = known.state.iter().map(|pdu| &pdu.event_id).collect();
    state.extend([&start, &topic.event_id]);
    peer.says(
        &format!("/_matrix/federation/v1/state_ids/{place}"),
        Answer::Json(json!({ "pdu_ids": state, "auth_chain_ids": [] })),
    );
    for event in [&topic, &between] {
        peer.says(
            &format!("/_matrix/federation/v1/event/{}", encode(event.event_id.as_str())),
            Answer::Json(json!({ "pdus": [json_of(event)] })),
        );
    }
    peer.send("hs1", "t2", &[json_of(&last)]).await;
    stage.settle().await;
    assert!(stage.accepts(&last.event_id));
    let shown = stage.room().state("m.room.topic", "").expect("it is read");
    assert_eq!(shown.expect("a topic").id(), topic.event_id);
    let shown = stage.ann.state(&stage.room_id, "m.room.topic", "").await.ok();
    assert_eq!(shown, json!({}));
    let synced = stage.ann.sync("timeout=0&full_state=true").await.to_string();
    assert!(!synced.contains("bad words"));
}
