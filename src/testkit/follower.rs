//! A client that only follows `/sync`, checked against one that comes fresh.

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
        let found = self.differences().await;
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
