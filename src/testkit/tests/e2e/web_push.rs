//! Subscriptions of Web Push (MSC4174), with a service and a client that decrypts what it passes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hearth_testkit::{Client, SimNetwork, TestServer};
use p256::SecretKey;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use web_push_native::Auth;

/// A service with one subscription, and the client behind it.
struct Service {
    key: SecretKey,
    auth: [u8; 16],
    came: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    status: Arc<AtomicU16>,
}

impl Service {
    fn on(network: &SimNetwork) -> Self {
        let service = Self {
            key: SecretKey::from_slice(&[9; 32]).expect("a key"),
            auth: [5; 16],
            came: Arc::default(),
            status: Arc::new(AtomicU16::new(201)),
        };
        let (came, status) = (service.came.clone(), service.status.clone());
        let take = post(async move |headers: HeaderMap, body: Bytes| {
            let status = StatusCode::from_u16(status.load(Ordering::SeqCst)).expect("a status");
            if status.is_success() {
                came.lock().push((headers, body));
            }
            status
        });
        network.add("service.test", Router::new().route("/subscription/{id}", take));
        service
    }

    fn pusher(&self, id: &str) -> Value {
        let public = self.key.public_key().to_encoded_point(false);
        json!({
            "kind": "webpush", "app_id": "web", "pushkey": URL_SAFE_NO_PAD.encode(public.as_bytes()),
            "app_display_name": "Web", "device_display_name": "Browser", "lang": "en",
            "data": { "url": format!("https://service.test/subscription/{id}"), "auth": URL_SAFE_NO_PAD.encode(self.auth),
                "default_payload": { "account": "alice" } },
        })
    }

    /// What came until nothing more comes, decrypted; time is simulated.
    async fn came(&self) -> Vec<Value> {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let came = std::mem::take(&mut *self.came.lock());
        came.into_iter()
            .map(|(headers, body)| self.open(&headers, &body))
            .collect()
    }

    fn open(&self, headers: &HeaderMap, body: &[u8]) -> Value {
        assert_eq!(headers["content-encoding"], "aes128gcm");
        assert!(headers.contains_key("ttl"));
        let authorization = headers["authorization"].to_str().expect("text");
        assert!(authorization.starts_with("vapid t="), "{authorization}");
        assert!(body.len() <= 4096);
        let plain =
            web_push_native::decrypt(body.to_vec(), &self.key, &Auth::from(self.auth)).expect("it opens");
        serde_json::from_slice(&plain).expect("JSON")
    }
}

async fn acknowledge(client: &Client, token: &str) -> hearth_testkit::Answer {
    let body = json!({ "app_id": "web", "ack_token": token });
    client.post("/pushers/ack", body).await
}

/// The token in the only message that came.
fn token(came: &[Value]) -> String {
    let [message] = came else {
        panic!("one message: {came:?}")
    };
    assert_eq!(message["app_id"], "web");
    message["ack_token"].as_str().expect("a token").to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_told_once_its_client_showed_that_it_is_reached() {
    let network = SimNetwork::new(3);
    let server = TestServer::simulated("hs1", 4, 3, &network);
    let service = Service::on(&network);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = bob.room().with(&alice).build().await;

    let capabilities = alice.get("/capabilities").await.ok();
    let vapid = &capabilities["capabilities"]["m.webpush"];
    assert_eq!(vapid["enabled"], true);
    let key = URL_SAFE_NO_PAD.decode(vapid["vapid"].as_str().expect("a key"));
    assert_eq!(key.map(|key| (key.len(), key[0])), Ok((65, 4)));

    acknowledge(&alice, "none").await.refused(404, "M_NOT_FOUND");
    assert_eq!(
        alice.post("/pushers/set", service.pusher("one")).await.status,
        201
    );
    let shown = alice.get("/pushers").await.ok();
    assert_eq!(shown["pushers"][0]["activated"], false);
    bob.say(&room, "too early").await;
    let first = token(&service.came().await);
    acknowledge(&alice, "other")
        .await
        .refused(400, "M_UNKNOWN_ACTIVATION_TOKEN");
    acknowledge(&bob, &first).await.refused(404, "M_NOT_FOUND");
    tokio::time::sleep(Duration::from_secs(300)).await;
    acknowledge(&alice, &first)
        .await
        .refused(400, "M_EXPIRED_ACTIVATION_TOKEN");

    assert_eq!(
        alice.post("/pushers/set", service.pusher("one")).await.status,
        201
    );
    let second = token(&service.came().await);
    acknowledge(&alice, &first)
        .await
        .refused(400, "M_UNKNOWN_ACTIVATION_TOKEN");
    acknowledge(&alice, &second).await.ok();
    let shown = alice.get("/pushers").await.ok();
    assert_eq!(shown["pushers"][0]["activated"], true);

    let said = bob.say(&room, "hello").await;
    let came = service.came().await;
    assert_eq!((came.len(), &came[0]["event_id"]), (1, &json!(said)));
    assert_eq!(came[0]["content"]["body"], "hello");
    assert_eq!(
        (&came[0]["account"], &came[0]["counts"]["unread"]),
        (&json!("alice"), &json!(2))
    );
    assert!(came[0].get("devices").is_none());
    bob.say(&room, &"long ".repeat(2_000)).await;
    let came = service.came().await;
    assert!(came[0].get("content").is_none(), "it is fetched");

    // The same again changes nothing; another address has to be shown to work.
    assert_eq!(
        alice.post("/pushers/set", service.pusher("one")).await.status,
        200
    );
    assert!(service.came().await.is_empty());
    assert_eq!(
        alice.post("/pushers/set", service.pusher("two")).await.status,
        201
    );
    let third = token(&service.came().await);
    acknowledge(&alice, &third).await.ok();

    // A service that is down is tried again; one that knows the subscription no more ends it.
    service.status.store(503, Ordering::SeqCst);
    let later = bob.say(&room, "later").await;
    assert!(service.came().await.is_empty());
    service.status.store(201, Ordering::SeqCst);
    let mut came = Vec::new();
    for _ in 0..20 {
        came.extend(service.came().await);
    }
    assert_eq!((came.len(), &came[0]["event_id"]), (1, &json!(later)));
    service.status.store(410, Ordering::SeqCst);
    bob.say(&room, "gone").await;
    assert!(service.came().await.is_empty());
    assert_eq!(alice.get("/pushers").await.ok()["pushers"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_the_key_and_what_was_activated() {
    let network = SimNetwork::new(4);
    let server = TestServer::simulated("hs1", 4, 4, &network);
    let service = Service::on(&network);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = bob.room().with(&alice).build().await;
    alice.post("/pushers/set", service.pusher("one")).await;
    acknowledge(&alice, &token(&service.came().await)).await.ok();
    let key = alice.get("/capabilities").await.ok()["capabilities"]["m.webpush"].clone();
    let server = server.restart_simulated(5, &network).await;
    let (alice, bob) = (alice.on(server.endpoint()), bob.on(server.endpoint()));
    assert_eq!(
        alice.get("/capabilities").await.ok()["capabilities"]["m.webpush"],
        key
    );
    bob.say(&room, "still there").await;
    assert_eq!(service.came().await[0]["content"]["body"], "still there");
}
