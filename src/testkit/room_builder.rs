//! Building a room with its members in one expression.

use serde_json::{Map, Value, json};

use crate::Client;

/// A room that is not created yet.
pub struct RoomBuilder<'a> {
    creator: &'a Client,
    body: Map<String, Value>,
    members: Vec<&'a Client>,
    messages: usize,
}

impl<'a> RoomBuilder<'a> {
    /// A public room of one user.
    pub fn new(creator: &'a Client) -> Self {
        let mut body = Map::new();
        body.insert("preset".to_owned(), json!("public_chat"));
        Self {
            creator,
            body,
            members: Vec::new(),
            messages: 0,
        }
    }

    /// Sets a member of the request.
    pub fn set(mut self, name: &str, value: Value) -> Self {
        self.body.insert(name.to_owned(), value);
        self
    }

    /// The preset.
    pub fn preset(self, preset: &str) -> Self {
        self.set("preset", json!(preset))
    }

    /// The room version.
    pub fn version(self, version: &str) -> Self {
        self.set("room_version", json!(version))
    }

    /// An initial state event.
    pub fn state(mut self, kind: &str, key: &str, content: Value) -> Self {
        let list = self.body.entry("initial_state").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!({ "type": kind, "state_key": key, "content": content }));
        }
        self
    }

    /// The history visibility from the start.
    pub fn visibility(self, visibility: &str) -> Self {
        let content = json!({ "history_visibility": visibility });
        self.state("m.room.history_visibility", "", content)
    }

    /// A user who is invited and joins.
    pub fn with(mut self, member: &'a Client) -> Self {
        self.members.push(member);
        self
    }

    /// This many messages of the creator: `m0`, `m1`, …
    pub fn messages(mut self, count: usize) -> Self {
        self.messages = count;
        self
    }

    /// Creates the room; gives its id.
    pub async fn build(self) -> String {
        let invited: Vec<_> = self.members.iter().map(|member| member.user_id.clone()).collect();
        let room = self.set_invited(invited);
        let id = room.creator.create_room(Value::Object(room.body)).await;
        for member in room.members {
            member.join(&id).await;
        }
        for number in 0..room.messages {
            room.creator.say(&id, &format!("m{number}")).await;
        }
        id
    }

    fn set_invited(self, users: Vec<String>) -> Self {
        if users.is_empty() {
            self
        } else {
            self.set("invite", json!(users))
        }
    }
}
