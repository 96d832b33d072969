//! Notifications of the real binary: killed while a pusher's queue is not empty, it tells the gateway of everything, and
//! of nothing twice that the gateway has taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use hearth_testkit::{Client, TestProcess};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// What does not come in this time never does: the longest pause after few failures is some seconds.
const WAIT_MAX: Duration = Duration::from_secs(60);
const WAIT_POLL: Duration = Duration::from_millis(5);

/// How often the server is killed while the gateway answers.
const KILLS: usize = 4;
const ROOMS: usize = 5;

/// A push gateway that listens.
#[derive(Clone, Default)]
struct Gateway {
    /// How often each event was told and taken.
    taken: Arc<Mutex<BTreeMap<String, usize>>>,
    refused: Arc<AtomicUsize>,
    is_up: Arc<AtomicBool>,
}

impl Gateway {
    /// Listens; gives the address for pushers.
    async fn listen(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let gateway = self.clone();
        let notify = post(move |body: axum::Json<Value>| std::future::ready(gateway.notify(&body)));
        let router = Router::new().route("/_matrix/push/v1/notify", notify);
        hearth_core::tasks::spawn("push gateway", async move {
            drop(axum::serve(listener, router).await);
        });
        format!("http://{address}/_matrix/push/v1/notify")
    }

    fn notify(&self, body: &Value) -> (StatusCode, axum::Json<Value>) {
        if !self.is_up.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return (StatusCode::BAD_GATEWAY, axum::Json(json!({})));
        }
        if let Some(event) = body["notification"]["event_id"].as_str() {
            *self.taken.lock().entry(event.to_owned()).or_default() += 1;
        }
        (StatusCode::OK, axum::Json(json!({ "rejected": [] })))
    }

    async fn has_taken(&self, events: &[String]) {
        wait(&format!("{events:?}"), || {
            let taken = self.taken.lock();
            events.iter().all(|event| taken.contains_key(event))
        })
        .await;
    }
}

async fn wait(what: &str, is_so: impl Fn() -> bool) {
    let so = async {
        while !is_so() {
            tokio::time::sleep(WAIT_POLL).await;
        }
    };
    let waited = tokio::time::timeout(WAIT_MAX, so).await;
    waited.unwrap_or_else(|_| panic!("it has to come to this: {what}"));
}

/// A message to each room.
async fn say_everywhere(client: &Client, rooms: &[String], text: &str) -> Vec<String> {
    let mut said = Vec::new();
    for room in rooms {
        said.push(client.say(room, text).await);
    }
    said
}

#[tokio::test]
async fn a_killed_server_tells_what_its_queues_held() {
    let Some(binary) = TestProcess::binary() else {
        eprintln!("skipped: build the hearth binary first, or name it in HEARTH_BINARY");
        return;
    };
    let gateway = Gateway::default();
    let url = gateway.listen().await;
    let mut process = TestProcess::start_with(binary, "federation_allow_private_addresses = true").await;
    let (alice, bob) = (process.register("alice").await, process.register("bob").await);
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        rooms.push(alice.room().with(&bob).build().await);
    }
    let pusher = json!({
        "kind": "http", "app_id": "app", "pushkey": "key", "app_display_name": "App", "device_display_name": "Phone",
        "lang": "en", "data": { "url": url },
    });
    bob.post("/pushers/set", pusher).await.ok();

    // The gateway refuses, so that everything is in the queue when the process dies.
    let mut said = say_everywhere(&alice, &rooms, "while it was down").await;
    wait("the gateway was asked", || {
        gateway.refused.load(Ordering::SeqCst) > 0
    })
    .await;
    process.kill();
    gateway.is_up.store(true, Ordering::SeqCst);
    process.restart().await;
    gateway.has_taken(&said).await;
    assert!(
        gateway.taken.lock().values().all(|times| *times == 1),
        "{:?}",
        gateway.taken.lock()
    );

    // It takes what it can while the process dies again and again.
    for kill in 0..KILLS {
        said.extend(say_everywhere(&alice, &rooms, &format!("before kill {kill}")).await);
        process.restart().await;
    }
    // One task tells of one thing after the other: what is told last was preceded by all.
    said.push(alice.say(&rooms[0], "the last").await);
    gateway.has_taken(&said).await;
    let taken = gateway.taken.lock().clone();
    assert_eq!(taken.len(), said.len(), "nothing else was told: {taken:?}");
    // What the gateway took in the moment of a kill, and nobody could note, it knows by the event's id.
    let doubled: usize = taken.values().map(|times| times - 1).sum();
    assert!(doubled <= KILLS, "{doubled} of {taken:?}");
}
