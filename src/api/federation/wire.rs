//! Answers made of whole events. Their stored bytes are copied as they are: parsing them again would cost more than
//! finding them.

use std::fmt::Display;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use hearth_rooms::Event;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::Value;

/// A JSON object that is written member by member.
pub struct Object(Vec<u8>);

impl Object {
    /// An empty object.
    pub fn new() -> Self {
        Self(b"{".to_vec())
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.extend_from_slice(Value::from(name).to_string().as_bytes());
        self.0.push(b':');
    }

    /// Adds a member; `value` prints as JSON.
    pub fn value(mut self, name: &str, value: impl Display) -> Self {
        self.name(name);
        self.0.extend_from_slice(value.to_string().as_bytes());
        self
    }

    /// Adds an event as it is exchanged between servers.
    pub fn event(mut self, name: &str, event: &Event) -> Self {
        self.name(name);
        self.0.extend_from_slice(&event.pdu.json);
        self
    }

    /// Adds a list of events as they are exchanged between servers.
    pub fn events(mut self, name: &str, events: &[Arc<Event>]) -> Self {
        self.name(name);
        let bytes: usize = events.iter().map(|event| event.pdu.json.len() + 1).sum();
        self.0.reserve(bytes + 64);
        self.0.push(b'[');
        for (at, event) in events.iter().enumerate() {
            if at > 0 {
                self.0.push(b',');
            }
            self.0.extend_from_slice(&event.pdu.json);
        }
        self.0.push(b']');
        self
    }

    /// The answer of the first version of some endpoints: a list of the status and the object.
    pub fn into_old_response(self) -> Response {
        json_response(self.into_old_bytes())
    }

    /// What that answer consists of.
    pub fn into_old_bytes(self) -> Vec<u8> {
        let object = self.into_bytes();
        let mut body = Vec::with_capacity(object.len() + 8);
        body.extend_from_slice(b"[200,");
        body.extend_from_slice(&object);
        body.push(b']');
        body
    }

    /// The finished object.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

impl Default for Object {
    fn default() -> Self {
        Self::new()
    }
}

impl IntoResponse for Object {
    fn into_response(self) -> Response {
        json_response(self.into_bytes())
    }
}

/// An answer whose body is JSON already.
pub fn json_response(body: Vec<u8>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], body).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_separated() {
        let check = |object: Object, expected: Value| {
            let found: Value = serde_json::from_slice(&object.into_bytes()).expect("JSON");
            assert_eq!(found, expected);
        };
        check(Object::new(), json!({}));
        let object = Object::new()
            .value("a\"", 1)
            .events("list", &[])
            .value("s", json!("x"));
        check(object, json!({ "a\"": 1, "list": [], "s": "x" }));
    }
}
