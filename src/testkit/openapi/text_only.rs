//! What only the specification's text says of an answer, in the form of its files.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::files::Part;

/// The schema of what the files leave out of an operation's answer.
pub(super) fn schema(operation: &str) -> Option<Part> {
    let value = match operation {
        "sync" => &*SYNC,
        _ => return None,
    };
    Some(Part {
        // References are as in the file of the operation.
        file: "api/client-server/sync.yaml",
        value,
    })
}

/// The schema of `m.relations` in the `unsigned` of events.
pub(super) fn relations() -> Part {
    Part {
        file: "api/client-server/sync.yaml",
        value: &RELATIONS,
    }
}

/// "Server-side aggregation of m.replace relationships", of references and of threads.
static RELATIONS: LazyLock<Value> = LazyLock::new(|| {
    let event = json!({ "$ref": "definitions/client_event_without_room_id.yaml" });
    json!({
        "type": "object",
        "properties": {
            "m.reference": {
                "type": "object",
                "properties": {
                    "chunk": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": { "event_id": { "type": "string", "format": "mx-event-id" } },
                            "required": ["event_id"],
                        },
                    },
                },
                "required": ["chunk"],
            },
            "m.replace": event,
            "m.thread": {
                "type": "object",
                "properties": {
                    "count": { "type": "integer" },
                    "current_user_participated": { "type": "boolean" },
                    "latest_event": event,
                },
                "required": ["count", "current_user_participated", "latest_event"],
            },
        },
    })
});

/// "Extensions to /sync" of send-to-device messaging and of end-to-end encryption.
static SYNC: LazyLock<Value> = LazyLock::new(|| {
    let users = json!({ "type": "array", "items": { "type": "string", "format": "mx-user-id" } });
    json!({
        "properties": {
            "to_device": {
                "type": "object",
                "properties": {
                    "events": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "content": { "type": "object" },
                                "sender": { "type": "string", "format": "mx-user-id" },
                                "type": { "type": "string" },
                            },
                            "required": ["content", "sender", "type"],
                        },
                    },
                },
            },
            "device_lists": {
                "type": "object",
                "properties": { "changed": users, "left": users },
            },
            "device_unused_fallback_key_types": { "type": "array", "items": { "type": "string" } },
        },
    })
});
