//! GET /_matrix/client/v1/rooms/{roomId}/hierarchy — Client-Server API, "Spaces".

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_events::JoinRule;
use hearth_rooms::{Membership, Room, Visibility};
use ruma::{OwnedRoomId, RoomId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};

/// The most rooms of one page.
const PAGE_MAX: usize = 50;

/// The most rooms that one walk looks at, all its pages together.
const WALK_MAX: usize = 5000;

#[derive(Deserialize)]
pub struct Options {
    #[serde(default)]
    suggested_only: bool,
    limit: Option<u64>,
    max_depth: Option<u64>,
    from: Option<String>,
}

/// The rooms below a space, depth first, as far as the user may know of them.
///
/// A page's token is how many rooms were given before it: the walk is made anew for each page.
pub async fn get_hierarchy(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let root = app
        .rooms
        .get(&room_id)?
        .filter(|room| may_know(room, &auth.user).unwrap_or(false));
    if root.is_none() {
        return Err(MatrixError::forbidden("You are not in this space, and may not look into it").into());
    }
    let wrong = |_| MatrixError::invalid_param("from is not a token of this endpoint");
    let from: usize = options.from.as_deref().map_or(Ok(0), str::parse).map_err(wrong)?;
    let limit = options
        .limit
        .map_or(PAGE_MAX, |limit| usize::try_from(limit).unwrap_or(PAGE_MAX));
    let limit = limit.clamp(1, PAGE_MAX);
    let mut seen = HashSet::new();
    let mut found = 0;
    let mut page = Vec::new();
    // Depth and room; the next one is at the end.
    let mut left: Vec<(u64, OwnedRoomId)> = vec![(0, room_id)];
    while let Some((depth, id)) = left.pop() {
        if !seen.insert(id.clone()) || seen.len() > WALK_MAX {
            continue;
        }
        let Some(room) = app.rooms.get(&id)? else { continue };
        if !may_know(&room, &auth.user)? {
            continue;
        }
        if page.len() == limit {
            return Ok(Json(json!({ "rooms": page, "next_batch": found.to_string() })));
        }
        let children = children(&room, options.suggested_only)?;
        if options.max_depth.is_none_or(|max| depth < max) {
            left.extend(children.iter().rev().map(|child| (depth + 1, child.id.clone())));
        }
        if found >= from {
            let mut summary = room.summary()?;
            summary["children_state"] = Value::Array(children.into_iter().map(|child| child.event).collect());
            page.push(summary);
        }
        found += 1;
    }
    Ok(Json(json!({ "rooms": page })))
}

/// Whether a user may know of a room without being told by somebody in it.
fn may_know(room: &Room, user: &UserId) -> Result<bool> {
    let rule = room.join_rule()?;
    Ok(matches!(
        rule.rule,
        JoinRule::Public | JoinRule::Knock | JoinRule::KnockRestricted
    ) || room.history_visibility()? == Visibility::WorldReadable
        || matches!(room.membership(user)?, Membership::Join | Membership::Invite)
        || room.may_join_by_rule(&rule, user)?)
}

struct Child {
    id: OwnedRoomId,
    event: Value,
}

/// The valid children of a space, in the order of the specification ("Ordering of children").
fn children(room: &Room, suggested_only: bool) -> Result<Vec<Child>> {
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
