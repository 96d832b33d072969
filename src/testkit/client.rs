//! A client of the client-server API: enough to say in a test what a user does.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::{Answer, Endpoint, PASSWORD, RoomBuilder, V3, encode};

/// One device of a user.
pub struct Client {
    /// The server.
    pub endpoint: Endpoint,
    /// The user's full id.
    pub user_id: String,
    /// The device's id.
    pub device_id: String,
    /// The access token.
    pub token: String,
    /// The refresh token, where the session has one.
    pub refresh_token: Option<String>,
    next_txn: AtomicU64,
}

impl Client {
    /// Makes an account; its first device is called after it.
    pub async fn register(endpoint: &Endpoint, name: &str) -> Self {
        let body = json!({
            "username": name,
            "password": PASSWORD,
            "device_id": format!("{}1", name.to_uppercase()),
            "auth": { "type": "m.login.dummy" },
        });
        let answer = endpoint
            .call("POST", &format!("{V3}/register"), None, &body)
            .await
            .ok();
        Self::of(endpoint, &answer)
    }

    /// Logs another device in.
    pub async fn login(endpoint: &Endpoint, name: &str, device: &str) -> Self {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": name },
            "password": PASSWORD,
            "device_id": device,
        });
        let answer = endpoint
            .call("POST", &format!("{V3}/login"), None, &body)
            .await
            .ok();
        Self::of(endpoint, &answer)
    }

    /// The client that an answer of a registration or login makes.
    pub fn of(endpoint: &Endpoint, answer: &Value) -> Self {
        Self {
            endpoint: endpoint.clone(),
            user_id: text(answer, "user_id"),
            device_id: text(answer, "device_id"),
            token: text(answer, "access_token"),
            refresh_token: answer["refresh_token"].as_str().map(str::to_owned),
            next_txn: AtomicU64::new(1),
        }
    }

    /// The same device on a server that was started again.
    pub fn on(&self, endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            user_id: self.user_id.clone(),
            device_id: self.device_id.clone(),
            token: self.token.clone(),
            refresh_token: self.refresh_token.clone(),
            next_txn: AtomicU64::new(self.next_txn.load(Ordering::Relaxed)),
        }
    }

    /// Any request. A path that does not begin with `/_` is below `/_matrix/client/v3`.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let path = if path.starts_with("/_") {
            path.to_owned()
        } else {
            format!("{V3}{path}")
        };
        self.endpoint.call(method, &path, Some(&self.token), &body).await
    }

    /// GET
    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Value::Null).await
    }

    /// POST
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, body).await
    }

    /// PUT
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, body).await
    }

    /// DELETE
    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, Value::Null).await
    }

    /// A transaction id that this client has not used.
    pub fn txn(&self) -> String {
        format!("t{}", self.next_txn.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins a room.
    pub fn room(&self) -> RoomBuilder<'_> {
        RoomBuilder::new(self)
    }

    /// Creates a room and gives its id.
    pub async fn create_room(&self, body: Value) -> String {
        text(&self.post("/createRoom", body).await.ok(), "room_id")
    }

    /// Joins a room.
    pub async fn join(&self, room: &str) {
        self.act(room, "join", json!({})).await.ok();
    }

    /// Leaves a room.
    pub async fn leave(&self, room: &str) {
        self.act(room, "leave", json!({})).await.ok();
    }

    /// Invites a user.
    pub async fn invite(&self, room: &str, user: &Client) {
        self.act(room, "invite", json!({ "user_id": user.user_id }))
            .await
            .ok();
    }

    /// `POST /rooms/{room}/{action}`: join, leave, invite, kick, ban, unban, forget.
    pub async fn act(&self, room: &str, action: &str, body: Value) -> Answer {
        self.post(&format!("/rooms/{}/{action}", encode(room)), body)
            .await
    }

    /// Sends an event of any type.
    pub async fn send(&self, room: &str, kind: &str, content: Value) -> String {
        text(
            &self.send_txn(room, kind, &self.txn(), content).await.ok(),
            "event_id",
        )
    }

    /// Sends a text message.
    pub async fn say(&self, room: &str, body: &str) -> String {
        self.send(
            room,
            "m.room.message",
            json!({ "msgtype": "m.text", "body": body }),
        )
        .await
    }

    /// Sends an event by a transaction id.
    pub async fn send_txn(&self, room: &str, kind: &str, txn: &str, content: Value) -> Answer {
        self.put(
            &format!("/rooms/{}/send/{}/{}", encode(room), encode(kind), encode(txn)),
            content,
        )
        .await
    }

    /// Sets state.
    pub async fn set_state(&self, room: &str, kind: &str, key: &str, content: Value) -> String {
        text(
            &self.try_set_state(room, kind, key, content).await.ok(),
            "event_id",
        )
    }

    /// Sets state; the server may refuse.
    pub async fn try_set_state(&self, room: &str, kind: &str, key: &str, content: Value) -> Answer {
        self.put(
            &format!("/rooms/{}/state/{}/{}", encode(room), encode(kind), encode(key)),
            content,
        )
        .await
    }

    /// The content of a state event.
    pub async fn state(&self, room: &str, kind: &str, key: &str) -> Answer {
        self.get(&format!(
            "/rooms/{}/state/{}/{}",
            encode(room),
            encode(kind),
            encode(key)
        ))
        .await
    }

    /// Redacts an event.
    pub async fn redact(&self, room: &str, event: &str) -> String {
        text(&self.try_redact(room, event).await.ok(), "event_id")
    }

    /// Redacts an event; the server may refuse.
    pub async fn try_redact(&self, room: &str, event: &str) -> Answer {
        let path = format!("/rooms/{}/redact/{}/{}", encode(room), encode(event), self.txn());
        self.put(&path, json!({ "reason": "because" })).await
    }

    /// An event.
    pub async fn event(&self, room: &str, event: &str) -> Answer {
        self.get(&format!("/rooms/{}/event/{}", encode(room), encode(event)))
            .await
    }

    /// A page of messages; `query` without the question mark.
    pub async fn messages(&self, room: &str, query: &str) -> Value {
        self.get(&format!("/rooms/{}/messages?{query}", encode(room)))
            .await
            .ok()
    }

    /// `/sync` with a query, without the question mark.
    pub async fn sync(&self, query: &str) -> Value {
        self.get(&format!("/sync?{query}")).await.ok()
    }

    /// `/sync` since a token, without waiting.
    pub async fn sync_since(&self, since: &Value) -> Value {
        let since = since["next_batch"]
            .as_str()
            .or(since.as_str())
            .unwrap_or_default();
        self.sync(&format!("timeout=0&since={}", encode(since))).await
    }

    /// Makes a filter and gives its id.
    pub async fn filter(&self, filter: Value) -> String {
        let path = format!("/user/{}/filter", encode(&self.user_id));
        text(&self.post(&path, filter).await.ok(), "filter_id")
    }
}

/// A text member of an answer; the answer must have it.
#[track_caller]
pub fn text(answer: &Value, name: &str) -> String {
    answer[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {answer}"))
        .to_owned()
}
