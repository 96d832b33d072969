//! What clients and servers are shown of a space and the rooms below it.

use hearth_events::AllowRule;
use hearth_rooms::Room;
use ruma::{OwnedRoomId, RoomId};
use serde_json::{Value, json};

use crate::error::Result;

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

/// A room of a space's hierarchy with its children.
pub fn summary(room: &Room, suggested_only: bool) -> Result<Value> {
    with_children(room, children(room, suggested_only)?)
}

/// A room of a space's hierarchy with these children.
pub fn with_children(room: &Room, children: Vec<Child>) -> Result<Value> {
    let mut summary = full_summary(room)?;
    summary["children_state"] = Value::Array(children.into_iter().map(|child| child.event).collect());
    Ok(summary)
}

/// A child of a space.
pub struct Child {
    /// The room.
    pub id: OwnedRoomId,
    /// The event that makes it one, stripped.
    pub event: Value,
}

/// The valid children of a space, in the order of the specification ("Ordering of children").
pub fn children(room: &Room, suggested_only: bool) -> Result<Vec<Child>> {
    if room.create_info().room_type.as_deref() != Some("m.space") {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for event in room.state_of_type("m.space.child")? {
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
        let event = json!({
            "type": "m.space.child",
            "state_key": id,
            "sender": event.pdu.sender(),
            "origin_server_ts": event.pdu.origin_server_ts(),
            "content": content,
        });
        found.push((
            key,
            Child {
                id: id.to_owned(),
                event,
            },
        ));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found.into_iter().map(|(_, child)| child).collect())
}

/// An order has at most 50 characters from space to tilde.
fn is_order(order: &str) -> bool {
    order.len() <= 50 && order.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

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
