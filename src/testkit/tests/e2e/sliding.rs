//! Sliding sync (MSC4186), on both wires.

mod connections;
mod extensions;
mod lists;
mod memberships;
mod merged;
mod rooms;
mod wires;

use hearth_testkit::{Client, encode};
use serde_json::{Value, json};

pub(crate) const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
pub(crate) const V4: &str = "/_matrix/client/v4/sync";

/// A request on the unstable wire; `pos` is an answer or null.
pub(crate) async fn slide(client: &Client, pos: &Value, body: Value) -> Value {
    let query = match pos["pos"].as_str() {
        Some(pos) => format!("?timeout=0&pos={}", encode(pos)),
        None => String::new(),
    };
    client.post(&format!("{UNSTABLE}{query}"), body).await.ok()
}

/// All rooms with the own membership, from the start or as soon as there is something new.
pub(crate) async fn slide_all(client: &Client, pos: Option<&str>) -> Value {
    let query = match pos {
        Some(pos) => format!("?timeout=30000&pos={}", encode(pos)),
        None => String::new(),
    };
    let body = list(json!([[0, 99]]), json!([["m.room.member", "$ME"]]), 2);
    client.post(&format!("{UNSTABLE}{query}"), body).await.ok()
}

/// A room with a name at which people knock.
async fn room_to_knock_at(creator: &Client) -> String {
    creator
        .room()
        .preset("private_chat")
        .set("name", json!("Den"))
        .state("m.room.join_rules", "", json!({ "join_rule": "knock" }))
        .build()
        .await
}

/// A body with one list.
fn list(ranges: Value, required_state: Value, limit: u64) -> Value {
    json!({ "lists": { "all": {
        "ranges": ranges, "required_state": required_state, "timeline_limit": limit,
    } } })
}

/// The rooms of an answer.
fn rooms(answer: &Value) -> Vec<&str> {
    let rooms = answer["rooms"].as_object().into_iter().flatten();
    rooms.map(|(id, _)| id.as_str()).collect()
}

fn list_of(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

pub(crate) fn kinds(events: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list_of(events).iter().map(|event| text(&event["type"])).collect()
}

/// Takes out of an answer what is another each time.
pub(crate) fn without_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for name in [
                "pos",
                "event_id",
                "origin_server_ts",
                "bump_stamp",
                "prev_batch",
                "unsigned",
                "next_batch",
                "ts",
            ] {
                if let Some(value) = map.get_mut(name) {
                    *value = json!("…");
                }
            }
            map.values_mut().for_each(without_times);
        }
        Value::Array(list) => list.iter_mut().for_each(without_times),
        _ => {}
    }
}
