//! What a hostile server costs: requests, rows and waiting are bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hearth_testkit::{TestServer, encode};
use ruma::OwnedEventId;
use serde_json::{Value, json};

use super::peer::{self, Answer, Known, json_of};
use super::{Stage, room};

/// What another server is asked for events by.
const ASKED_FOR_EVENTS: [&str; 6] = [
    "get_missing_events",
    "backfill",
    "event",
    "state",
    "state_ids",
    "event_auth",
];

/// A hostile server that always has one more event before those that it is asked for, and takes its time for each answer.
fn endless(stage: &Stage, wide: usize, takes: Duration) -> Arc<AtomicU64> {
    let made = Arc::new(AtomicU64::new(0));
    let (peer, room, auth) = (stage.peer.clone(), stage.known.id.clone(), stage.known.auth());
    let (rules, user) = (stage.known.rules, stage.known.user.clone());
    let (count, state) = (made.clone(), stage.known.state.clone());
    let join = stage.known.join.clone();
    let make = move |_: &str, _: &Value| {
        let known = Known {
            id: room.clone(),
            rules,
            user: user.clone(),
            state: state.clone(),
            join: join.clone(),
        };
        let events: Vec<Value> = (0..20)
            .map(|_| {
                let number = count.fetch_add(1, Ordering::Relaxed);
                json_of(&known.message(
                    &peer,
                    &format!("endless {number}"),
                    &missing(number, wide),
                    1_000_000 - number,
                ))
            })
            .collect();
        let ids: Vec<&str> = auth.iter().map(|id| id.as_str()).collect();
        json!({ "events": events, "pdus": events, "pdu_ids": ids, "auth_chain_ids": ids, "auth_chain": [] })
    };
    let make: peer::Make = Arc::new(make);
    for path in ASKED_FOR_EVENTS {
        stage.peer.says(
            &format!("/_matrix/federation/v1/{path}/"),
            Answer::Late(takes, make.clone()),
        );
    }
    made
}

/// Ids of events that nobody has.
fn missing(number: u64, wide: usize) -> Vec<OwnedEventId> {
    let id = |at: usize| {
        let hash = hearth_events::base64_encode(format!("{number:024}{at:08}").as_bytes());
        OwnedEventId::try_from(format!("${}", hash.replace('+', "-").replace('/', "_"))).expect("an id")
    };
    (0..wide).map(id).collect()
}

#[tokio::test(start_paused = true)]
async fn endless_ancestors_cost_a_bounded_amount() {
    for (version, wide) in [("6", 1), ("10", 20), ("12", 20)] {
        let stage = Stage::new(version).await;
        endless(&stage, wide, Duration::ZERO);
        let before = stage.rows();
        let known = &stage.known;
        let sent: Vec<Value> = (0..5)
            .map(|at| {
                json_of(&known.message(
                    &stage.peer,
                    &format!("deep {at}"),
                    &missing(900_000 + at, wide),
                    2_000_000,
                ))
            })
            .collect();
        stage.peer.asked();
        stage.peer.send("hs1", "t", &sent).await;
        stage.settle().await;
        let asked = stage.peer.asked().len();
        let rows = stage.rows() - before;
        println!(
            "version {version}, {wide} missing events each: 5 events cost {asked} requests and {rows} rows"
        );
        // An event may cost the twenty that are fetched for it, each two questions for every event that it names.
        let most = 5 * (21 * 2 * wide + 5);
        assert!(asked <= most, "{asked} requests");
        assert!(rows <= 5 * 21 + 50, "{rows} rows");
    }
}

#[tokio::test(start_paused = true)]
async fn a_huge_state_is_refused_or_kept_small() {
    let stage = Stage::new("10").await;
    let known = &stage.known;
    let before = stage.rows();
    let ids: Vec<String> = (0..60_000)
        .map(|at| format!("$huge{at:08}{}", "x".repeat(34)))
        .collect();
    let body = json!({ "pdu_ids": ids, "auth_chain_ids": ids });
    stage
        .peer
        .says("/_matrix/federation/v1/state_ids/", Answer::Json(body));
    let junk: Vec<Value> = (0..5_000)
        .map(|at| json!({ "type": "m.junk", "state_key": at.to_string() }))
        .collect();
    stage.peer.says(
        "/_matrix/federation/v1/state/",
        Answer::Json(json!({ "pdus": junk, "auth_chain": junk })),
    );
    stage.peer.says(
        "/_matrix/federation/v1/get_missing_events/",
        Answer::Json(json!({ "events": [] })),
    );
    stage.peer.asked();
    let message = known.message(&stage.peer, "before it: a huge state", &missing(1, 1), 100);
    stage.peer.send("hs1", "t", &[json_of(&message)]).await;
    stage.settle().await;
    let asked = stage.peer.asked().len();
    let rows = stage.rows() - before;
    println!("a state of 60,000 made-up events costs {asked} requests and {rows} rows");
    assert!(asked <= 60, "{asked} requests");
    assert!(rows <= 2, "{rows} rows");
    // The room is what it was.
    stage.ann.say(&stage.room_id, "still here").await;
}

#[tokio::test(start_paused = true)]
async fn slow_answers_hold_up_nobody_else() {
    let stage = Stage::new("10").await;
    let hs2 = TestServer::simulated("hs2", 4, 2, &stage.network);
    let bob = hs2.register("bob").await;
    let calm = room(&stage.ann, "10").await;
    for id in [&calm, &stage.room_id] {
        let joined = bob
            .post(&format!("/join/{}?via=hs1", encode(id)), json!({}))
            .await;
        assert_eq!(joined.status, 200, "{joined:?}");
    }
    for path in ASKED_FOR_EVENTS {
        let slow = Answer::Slow(Duration::from_secs(100_000), json!({}));
        stage.peer.says(&format!("/_matrix/federation/v1/{path}/"), slow);
    }
    let known = &stage.known;
    let sent: Vec<Value> = (0..10)
        .map(|at| json_of(&known.message(&stage.peer, &format!("slow {at}"), &missing(at, 1), 1_000)))
        .collect();
    stage.peer.send("hs1", "t", &sent).await;
    // In another room events go on at once; in the same one, the local user's do.
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.ann.say(&stage.room_id, "here").await;
    let said = bob.say(&calm, "there").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let seen = stage.ann.event(&calm, &said).await;
    assert_eq!(seen.status, 200, "{seen:?}");
    // In the hostile room, what others say comes as soon as one question to the hostile server has timed out.
    let begun = tokio::time::Instant::now();
    let said = bob.say(&stage.room_id, "behind the slow ones").await;
    loop {
        if stage.ann.event(&stage.room_id, &said).await.status == 200 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "it never comes");
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    println!(
        "behind ten events of a server that does not answer, another's waits {:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_holds_up_its_room_for_a_bounded_time() {
    let stage = Stage::new("10").await;
    let hs2 = TestServer::simulated("hs2", 4, 2, &stage.network);
    let bob = hs2.register("bob").await;
    let join = format!("/join/{}?via=hs1", encode(&stage.room_id));
    bob.post(&join, json!({})).await.ok();
    // Each answer comes in time, and there are hundreds of questions.
    endless(&stage, 20, Duration::from_secs(15));
    let message = stage
        .known
        .message(&stage.peer, "deep", &missing(900_000, 20), 2_000_000);
    stage.peer.send("hs1", "t", &[json_of(&message)]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    let said = bob.say(&stage.room_id, "behind the deep one").await;
    while stage.ann.event(&stage.room_id, &said).await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(600), "it never comes");
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

/// Any member may name events that nobody has as those before its own: who joins later gets at the history all the same.
#[tokio::test(start_paused = true)]
async fn made_up_ancestors_do_not_hide_history() {
    let stage = Stage::new("10").await;
    let first = stage.ann.say(&stage.room_id, "first").await;
    let state = stage.known.state.iter().chain([&stage.known.join]);
    let state: Vec<&str> = state.map(|event| event.event_id.as_str()).collect();
    let state = json!({ "pdu_ids": state, "auth_chain_ids": [] });
    stage
        .peer
        .says("/_matrix/federation/v1/state_ids/", Answer::Json(state));
    for at in 0..20 {
        let mut before = missing(at, 19);
        before.extend(
            stage
                .room()
                .tips()
                .expect("tips")
                .iter()
                .map(|tip| tip.id().to_owned()),
        );
        let message = stage
            .known
            .message(&stage.peer, &format!("bad {at}"), &before, 1_000 + at);
        stage
            .peer
            .send("hs1", &format!("t{at}"), &[json_of(&message)])
            .await;
        while !stage.accepts(&message.event_id) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let hs2 = TestServer::simulated("hs2", 4, 2, &stage.network);
    let bob = hs2.register("bob").await;
    let join = format!("/join/{}?via=hs1", encode(&stage.room_id));
    bob.post(&join, json!({})).await.ok();
    let mut from = String::new();
    for page in 0.. {
        assert!(page < 10, "the first message is not found");
        let found = bob
            .messages(&stage.room_id, &format!("dir=b&limit=100{from}"))
            .await;
        if found.to_string().contains(&first) {
            break;
        }
        from = format!("&from={}", found["end"].as_str().expect("more"));
    }
    let trace = stage.network.trace();
    let longest = trace.iter().filter(|line| line.contains("/backfill/"));
    let longest = longest.map(String::len).max();
    assert!(longest.expect("a request") < 8_000, "{longest:?}");
}
