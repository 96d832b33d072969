//! Rooms as other servers describe them to clients: in directories and in spaces. What does not have the type that
//! clients expect is left out: many a client that meets it shows nothing of the whole answer.

use ruma::{OwnedRoomId, RoomAliasId, RoomId};
use serde_json::{Map, Value, json};

/// What has to stand where.
type Fits = fn(&Value) -> bool;

/// What a client is told of a room.
const FIELDS: [(&str, Fits); 12] = [
    ("name", Value::is_string),
    ("topic", Value::is_string),
    ("canonical_alias", |alias| {
        alias
            .as_str()
            .is_some_and(|alias| <&RoomAliasId>::try_from(alias).is_ok())
    }),
    ("num_joined_members", Value::is_u64),
    ("avatar_url", Value::is_string),
    ("world_readable", Value::is_boolean),
    ("guest_can_join", Value::is_boolean),
    ("join_rule", Value::is_string),
    ("room_type", Value::is_string),
    ("room_version", Value::is_string),
    ("encryption", Value::is_string),
    ("allowed_room_ids", |ids| {
        let is_id = |id: &Value| id.as_str().is_some_and(|id| <&RoomId>::try_from(id).is_ok());
        ids.as_array().is_some_and(|ids| ids.iter().all(is_id))
    }),
];

/// The longest text of a description: rooms with longer ones exist only to be a nuisance, since an event has no more.
const TEXT_MAX_BYTES: usize = 64 << 10;

/// What another server says of a room.
pub fn described_room(room: &Value) -> Option<(OwnedRoomId, Map<String, Value>)> {
    let id = RoomId::parse(room.get("room_id")?.as_str()?).ok()?;
    let mut said = Map::new();
    said.insert("room_id".to_owned(), json!(id));
    for (name, fits) in FIELDS {
        let value = room.get(name).filter(|value| fits(value));
        let value = value.filter(|value| value.as_str().is_none_or(|text| text.len() <= TEXT_MAX_BYTES));
        if let Some(value) = value {
            said.insert(name.to_owned(), value.clone());
        }
    }
    for (name, missing) in [
        ("num_joined_members", json!(0)),
        ("world_readable", json!(false)),
        ("guest_can_join", json!(false)),
    ] {
        said.entry(name).or_insert(missing);
    }
    Some((id, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let check = |room: Value, expected: Value| {
            let said = described_room(&room).map(|(_, said)| Value::Object(said));
            assert_eq!(said.unwrap_or_default(), expected, "{room}");
        };
        check(json!([]), json!(null));
        check(json!({ "room_id": 1 }), json!(null));
        check(json!({ "room_id": "room" }), json!(null));
        let none = json!({ "room_id": "!r:a", "num_joined_members": 0, "world_readable": false, "guest_can_join": false });
        check(json!({ "room_id": "!r:a" }), none.clone());
        check(
            json!({ "room_id": "!r:a", "name": null, "topic": {}, "canonical_alias": "alias", "num_joined_members": -1,
                "world_readable": "yes", "guest_can_join": 1, "join_rule": [], "allowed_room_ids": ["!a:b", 1],
                "name2": "more" }),
            none,
        );
        let whole = json!({ "room_id": "!r:a", "name": "Room", "topic": "Talk", "canonical_alias": "#a:b",
            "num_joined_members": 5, "world_readable": true, "guest_can_join": true, "join_rule": "restricted",
            "room_type": "m.space", "avatar_url": "mxc://a/b", "room_version": "12", "encryption": "m.megolm.v1.aes-sha2",
            "allowed_room_ids": ["!a:b"] });
        check(whole.clone(), whole);
    }
}
