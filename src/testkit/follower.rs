//! A client that only follows `/sync`, checked against one that comes fresh.

use crate::client_model::RoomModel;
use crate::{Client, ClientModel, encode};

/// A device that follows its account.
pub struct Follower {
    /// The device.
    pub client: Client,
    /// What it knows.
    pub model: ClientModel,
    query: String,
    lazy: bool,
}

impl Follower {
    /// Follows with a further query, such as `use_state_after=true`; it may be empty.
    pub fn new(client: Client, query: &str) -> Self {
        Self {
            client,
            model: ClientModel::new(),
            query: query.to_owned(),
            lazy: query.contains("lazy_load_members"),
        }
    }

    /// Takes the news there are, without waiting.
    pub async fn pull(&mut self) {
        let mut query = format!("timeout=0&{}", self.query);
        if let Some(since) = &self.model.next_batch {
            query.push_str(&format!("&since={}", encode(since)));
        }
        let answer = self.client.sync(&query).await;
        self.model.apply(&answer);
    }

    /// What it knows otherwise than a client that comes fresh. Take the news first.
    pub async fn differences(&self) -> Vec<String> {
        let mut fresh = ClientModel::new();
        fresh.apply(&self.client.sync(&format!("timeout=0&{}", self.query)).await);
        self.model.differences(&fresh, self.lazy)
    }

    /// Fails where it knows anything otherwise than a client that comes fresh.
    pub async fn check(&mut self, when: &str) {
        self.pull().await;
        let mut found = self.differences().await;
        for (id, room) in &self.model.joined {
            found.extend(differences_to_room(room, &self.client, id, self.lazy).await);
        }
        assert!(
            found.is_empty(),
            "{when}: {} sees\n{}",
            self.client.device_id,
            found.join("\n")
        );
    }

    /// The same device on a server that was started again.
    pub fn on(self, endpoint: crate::Endpoint) -> Self {
        Self {
            client: self.client.on(endpoint),
            ..self
        }
    }
}

/// How a view of a room differs from what the room says where it is asked for its whole state and history. With lazily
/// loaded members those that are known are compared.
pub(crate) async fn differences_to_room(
    view: &RoomModel,
    client: &Client,
    id: &str,
    lazy: bool,
) -> Vec<String> {
    let mut out = Vec::new();
    let place = format!("/rooms/{}", encode(id));
    let state = client.get(&format!("{place}/state")).await.ok();
    let mut asked = RoomModel::default();
    for event in state.as_array().into_iter().flatten() {
        asked.set_state(event, id, &mut out);
    }
    let known = |key: &(String, String)| !lazy || key.0 != "m.room.member" || view.state.contains_key(key);
    asked.state.retain(|key, _| known(key));
    if asked.state != view.state {
        out.push(format!(
            "{id}: state: followed {:?}, /state {:?}",
            view.state, asked.state
        ));
    }
    let page = client.messages(id, "dir=b&limit=1000").await;
    let events = page["chunk"].as_array().into_iter().flatten().rev();
    let history: Vec<&str> = events.filter_map(|event| event["event_id"].as_str()).collect();
    let timeline: Vec<&str> = view.timeline.iter().map(String::as_str).collect();
    if !history.ends_with(&timeline) {
        out.push(format!(
            "{id}: timeline: followed {timeline:?}, /messages {history:?}"
        ));
    }
    out
}
