//! The shape of a filter, to refuse what is none. It is stored as the client sent it.

use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;

/// A filter (Client-Server API, "Filtering").
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "read only to check the shape")]
pub struct Filter {
    event_fields: Option<Vec<String>>,
    event_format: Option<EventFormat>,
    presence: Option<EventFilter>,
    account_data: Option<EventFilter>,
    room: Option<RoomFilter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EventFormat {
    Client,
    Federation,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "read only to check the shape")]
struct EventFilter {
    limit: Option<u64>,
    senders: Option<Vec<OwnedUserId>>,
    not_senders: Option<Vec<OwnedUserId>>,
    types: Option<Vec<String>>,
    not_types: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "read only to check the shape")]
struct RoomFilter {
    rooms: Option<Vec<OwnedRoomId>>,
    not_rooms: Option<Vec<OwnedRoomId>>,
    include_leave: Option<bool>,
    timeline: Option<RoomEventFilter>,
    state: Option<RoomEventFilter>,
    ephemeral: Option<RoomEventFilter>,
    account_data: Option<RoomEventFilter>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "read only to check the shape")]
struct RoomEventFilter {
    limit: Option<u64>,
    senders: Option<Vec<OwnedUserId>>,
    not_senders: Option<Vec<OwnedUserId>>,
    types: Option<Vec<String>>,
    not_types: Option<Vec<String>>,
    rooms: Option<Vec<OwnedRoomId>>,
    not_rooms: Option<Vec<OwnedRoomId>>,
    contains_url: Option<bool>,
    lazy_load_members: Option<bool>,
    include_redundant_members: Option<bool>,
    unread_thread_notifications: Option<bool>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shapes() {
        let check = |filter: serde_json::Value, good: bool| {
            let got = serde_json::from_value::<Filter>(filter.clone());
            assert_eq!(got.is_ok(), good, "{filter}: {got:?}");
        };
        check(json!({}), true);
        check(
            json!({"room": {"timeline": {"limit": 10}, "org.example": 1}}),
            true,
        );
        check(json!({"room": {"state": {"lazy_load_members": true}}}), true);
        check(
            json!({"event_format": "federation", "event_fields": ["type", "content.body"]}),
            true,
        );
        check(json!({"presence": "not_an_object"}), false);
        check(json!({"room": {"timeline": "not_an_object"}}), false);
        check(json!({"room": {"timeline": {"rooms": "not_a_list"}}}), false);
        check(json!({"room": {"timeline": {"types": [1]}}}), false);
        check(json!({"room": {"timeline": {"rooms": ["not_a_room_id"]}}}), false);
        check(
            json!({"room": {"timeline": {"senders": ["not_a_sender_id"]}}}),
            false,
        );
        check(json!({"event_format": "other"}), false);
        check(json!({"room": {"timeline": {"limit": -1}}}), false);
    }
}
