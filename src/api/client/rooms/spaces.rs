//! What clients and servers are shown of a space and the rooms below it.

use hearth_events::AllowRule;
use hearth_rooms::Room;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::error::{ApiError, Result};

/// The most children of one space; the largest have a few thousand.
const CHILDREN_MAX: usize = 5_000;
/// So much of their events is shown together: mostly one takes some 250 bytes.
const CHILDREN_MAX_BYTES: usize = 4 << 20;
/// What an event takes beside its content.
const EVENT_BYTES: usize = 256;
/// How many events are read at once.
const CHUNK_EVENTS: usize = 128;
/// So much is read for one answer to find the children of its spaces: some hundred thousand events.
const READ_MAX_BYTES: usize = 64 << 20;
/// So many servers are asked about one room.
pub const SERVERS_MAX: usize = 3;
/// A longer name is none of a server.
const SERVER_NAME_MAX_BYTES: usize = hearth_core::limits::ID_MAX_BYTES;

/// What may still be read for an answer. Where it is used up, the spaces that follow have no children.
pub struct Budget {
    bytes: usize,
}

impl Budget {
    /// That of a new answer.
    pub fn new() -> Self {
        Self {
            bytes: READ_MAX_BYTES,
        }
    }
}

/// A room's summary with all that somebody who might join it may know.
pub fn full_summary(room: &Room) -> Result<Value> {
    let mut summary = room.summary()?;
    summary["room_version"] = json!(room.rules().version);
    if let Some(algorithm) = room.state_text("m.room.encryption", "algorithm")? {
        summary["encryption"] = json!(algorithm);
    }
    let allow = room.restricted_rule()?.map_or_else(Vec::new, |rule| rule.allow);
    let allowed = allow.iter().filter_map(|allow| match allow {
        AllowRule::RoomMembership(room) => Some(room),
        AllowRule::Other => None,
    });
    let allowed: Vec<_> = allowed.collect();
    if !allowed.is_empty() {
        summary["allowed_room_ids"] = json!(allowed);
    }
    Ok(summary)
}

/// A room of a space's hierarchy with these children.
pub fn with_children(room: &Room, children: &[Child]) -> Result<Box<RawValue>> {
    let mut summary = full_summary(room)?;
    let shorts: Vec<u32> = children.iter().map(|child| child.short).collect();
    let mut shown = Vec::new();
    let mut bytes = 0;
    'shown: for some in shorts.chunks(CHUNK_EVENTS) {
        for event in room.events(some)? {
            if bytes >= CHILDREN_MAX_BYTES {
                break 'shown;
            }
            bytes += EVENT_BYTES + event.pdu.content().len();
            let content: Value = serde_json::from_slice(event.pdu.content()).unwrap_or_default();
            shown.push(json!({
                "type": "m.space.child",
                "state_key": event.pdu.state_key(),
                "sender": event.pdu.sender(),
                "origin_server_ts": event.pdu.origin_server_ts(),
                "content": content,
            }));
        }
    }
    summary["children_state"] = Value::Array(shown);
    to_raw_value(&summary).map_err(|error| ApiError::internal(&error))
}

/// A child of a space.
pub struct Child {
    /// The room.
    pub id: OwnedRoomId,
    /// The servers through which it may be reached, as far as they are asked.
    pub via: Vec<OwnedServerName>,
    /// The event that makes it one.
    short: u32,
}

/// The order of children: by `order`, where there is one, then by time and id.
type OrderKey = (bool, Option<String>, u64, OwnedRoomId);

/// The valid children of a space, in the order of the specification ("Ordering of children"): as many as spaces have.
pub fn children(
    room: &Room,
    own: &ServerName,
    suggested_only: bool,
    budget: &mut Budget,
) -> Result<Vec<Child>> {
    if room.create_info().room_type.as_deref() != Some("m.space") || budget.bytes == 0 {
        return Ok(Vec::new());
    }
    let mut found: Vec<(OrderKey, Child)> = Vec::new();
    for some in room.state_shorts_of_type("m.space.child")?.chunks(CHUNK_EVENTS) {
        for event in room.events(some)? {
            budget.bytes = budget
                .bytes
                .saturating_sub(EVENT_BYTES + event.pdu.content().len());
            let Some(Ok(id)) = event.pdu.state_key().map(<&RoomId>::try_from) else {
                continue;
            };
            let content: Value = serde_json::from_slice(event.pdu.content()).unwrap_or_default();
            if !content.get("via").is_some_and(Value::is_array)
                || (suggested_only && content.get("suggested") != Some(&Value::Bool(true)))
            {
                continue;
            }
            let order = content
                .get("order")
                .and_then(Value::as_str)
                .filter(|order| is_order(order));
            let key = (
                order.is_none(),
                order.map(str::to_owned),
                event.pdu.origin_server_ts(),
                id.to_owned(),
            );
            let child = Child {
                id: id.to_owned(),
                via: via_of(&content, own),
                short: event.short,
            };
            found.push((key, child));
        }
        if found.len() >= 2 * CHILDREN_MAX {
            keep_first(&mut found);
        }
        if budget.bytes == 0 {
            break;
        }
    }
    keep_first(&mut found);
    Ok(found.into_iter().map(|(_, child)| child).collect())
}

/// Puts children in order, and keeps as many as spaces have.
fn keep_first(found: &mut Vec<(OrderKey, Child)>) {
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.truncate(CHILDREN_MAX);
}

/// The servers that the content of a child event names, without this one, as far as they are asked.
pub fn via_of(content: &Value, own: &ServerName) -> Vec<OwnedServerName> {
    let via = content["via"].as_array().into_iter().flatten();
    let names = via.filter_map(|server| server.as_str().filter(|name| name.len() <= SERVER_NAME_MAX_BYTES));
    names
        .filter_map(|name| OwnedServerName::try_from(name).ok())
        .filter(|name| name != own)
        .take(SERVERS_MAX)
        .collect()
}

/// An order has at most 50 characters from space to tilde.
fn is_order(order: &str) -> bool {
    order.len() <= 50 && order.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_are_asked() {
        let own = ruma::server_name!("own");
        let check = |via: Value, expected: &[&str]| {
            assert_eq!(via_of(&json!({ "via": via }), own), expected, "{via}");
        };
        check(json!(null), &[]);
        check(
            json!(["own", "a", 7, "no name", "own", "b", "c", "d"]),
            &["a", "b", "c"],
        );
        check(json!(["a".repeat(256), "b"]), &["b"]);
        assert!(via_of(&json!([]), own).is_empty());
    }

    #[test]
    fn orders() {
        let long = "x".repeat(51);
        for (order, expected) in [
            ("", true),
            ("abc ~", true),
            ("\u{7f}", false),
            ("ä", false),
            (&long, false),
        ] {
            assert_eq!(is_order(order), expected, "{order:?}");
        }
    }
}
