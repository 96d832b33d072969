//! Rooms of spaces that this server is not in, as other servers describe them (server-server API, "Spaces").

use std::collections::HashMap;
use std::time::Duration;

use hearth_federation::described_room;
use hearth_users::Membership;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName, UserId};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::spaces::{SERVERS_MAX, via_of};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::extract::Auth;

/// So many rooms are asked about for one page: each is a request to another server.
const ASKED_MAX: usize = 30;
/// The most children of a room that are taken from another server's answer.
const CHILDREN_MAX: usize = 100;
/// So many rooms whose members may join are looked at of one room.
const ALLOWED_MAX: usize = 100;
/// So much of what other servers say is kept in the course of one request: mostly a room takes a kilobyte.
const KEPT_MAX_BYTES: usize = 16 << 20;

/// A room as another server describes it.
#[derive(Clone)]
pub struct FarRoom {
    summary: Map<String, Value>,
    /// Its `m.space.child` events; none where only its parent's server was asked.
    children: Option<Vec<Value>>,
}

/// So long other servers are asked for one request; what is not known then is left out.
const ASKING_MAX: Duration = Duration::from_secs(20);

/// What other servers have said in the course of one request.
pub struct FarSpaces {
    known: HashMap<OwnedRoomId, FarRoom>,
    kept_bytes: usize,
    asked: usize,
    until: Instant,
}

impl FarSpaces {
    /// Nothing is known yet; the time to ask runs from now.
    pub fn new() -> Self {
        Self {
            known: HashMap::new(),
            kept_bytes: 0,
            asked: 0,
            until: Instant::now() + ASKING_MAX,
        }
    }

    /// A room with its children, by what one of these servers says.
    pub async fn room(
        &mut self,
        app: &App,
        id: &RoomId,
        via: &[OwnedServerName],
        suggested_only: bool,
    ) -> Option<FarRoom> {
        let known = self.known.get(id).cloned();
        if let Some(known) = &known
            && (known.children.is_some() || known.summary.get("room_type") != Some(&json!("m.space")))
        {
            return Some(known.clone());
        }
        let others = via.iter().filter(|server| **server != app.server_name);
        for server in others.take(SERVERS_MAX) {
            if self.asked >= ASKED_MAX {
                break;
            }
            self.asked += 1;
            let asking = app.federation.hierarchy(server, id, suggested_only);
            match tokio::time::timeout_at(self.until, asking).await {
                Ok(Ok(answer)) => {
                    if let Some(room) = self.take(id, &answer) {
                        return Some(room);
                    }
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, room = %id, "a space of another server cannot be had");
                }
                Err(_) => break,
            }
        }
        known
    }

    /// Keeps what an answer says, of the room and of its children.
    fn take(&mut self, id: &RoomId, answer: &Value) -> Option<FarRoom> {
        let children = answer["children"].as_array().into_iter().flatten();
        for child in children.take(CHILDREN_MAX) {
            if let Some((child_id, summary)) = described_room(child)
                && !self.known.contains_key(&child_id)
            {
                let children = None;
                self.keep(child_id, &FarRoom { summary, children });
            }
        }
        let (found, room) = read(&answer["room"])?;
        if found != id {
            return None;
        }
        self.keep(found, &room);
        Some(room)
    }

    /// Keeps a room, unless that is too much.
    fn keep(&mut self, id: OwnedRoomId, room: &FarRoom) {
        let bytes = room.bytes();
        if self.kept_bytes + bytes <= KEPT_MAX_BYTES {
            self.kept_bytes += bytes;
            self.known.insert(id, room.clone());
        }
    }
}

/// A room's description, as far as clients can read it.
fn read(room: &Value) -> Option<(OwnedRoomId, FarRoom)> {
    let (id, summary) = described_room(room)?;
    let children = room["children_state"].as_array().into_iter().flatten();
    let children = children.filter(|child| is_child(child)).take(CHILDREN_MAX);
    Some((
        id,
        FarRoom {
            summary,
            children: Some(children.cloned().collect()),
        },
    ))
}

/// Whether this is an event that makes a room the child of a space.
fn is_child(event: &Value) -> bool {
    event["type"] == "m.space.child"
        && event["content"]["via"].is_array()
        && event["state_key"].is_string()
        && event["origin_server_ts"].is_u64()
        && event["sender"]
            .as_str()
            .is_some_and(|sender| <&UserId>::try_from(sender).is_ok())
}

impl FarRoom {
    /// How large its description is.
    fn bytes(&self) -> usize {
        let size = |value: serde_json::Result<Vec<u8>>| value.map_or(0, |text| text.len());
        size(serde_json::to_vec(&self.summary)) + size(serde_json::to_vec(&self.children))
    }

    /// Whether a user may know of it: it is open, or the user is invited, or in a room whose members may join.
    pub fn is_shown_to(&self, auth: &Auth) -> Result<bool> {
        let text = |name: &str| self.summary.get(name).and_then(Value::as_str);
        let rule = text("join_rule").unwrap_or("public");
        let open = matches!(rule, "public" | "knock" | "knock_restricted");
        if open || self.summary.get("world_readable") == Some(&Value::Bool(true)) {
            return Ok(true);
        }
        let is = |id: &RoomId, wanted: &[Membership]| -> Result<bool> {
            let entry = auth.handle.room(id)?;
            Ok(entry.is_some_and(|entry| wanted.contains(&entry.membership)))
        };
        let own = text("room_id").and_then(|id| RoomId::parse(id).ok());
        if let Some(own) = own
            && is(&own, &[Membership::Join, Membership::Invite])?
        {
            return Ok(true);
        }
        let allowed = self.summary.get("allowed_room_ids").and_then(Value::as_array);
        // They say something of a restricted room alone.
        let allowed = allowed.filter(|_| rule == "restricted");
        for id in allowed
            .into_iter()
            .flatten()
            .take(ALLOWED_MAX)
            .filter_map(Value::as_str)
        {
            if let Ok(id) = RoomId::parse(id)
                && is(&id, &[Membership::Join])?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Its children, in the order in which the other server gives them, with the servers that may be asked about them.
    pub fn children(&self, own: &ServerName) -> Vec<(OwnedRoomId, Vec<OwnedServerName>)> {
        let children = self.children.iter().flatten().filter_map(|child| {
            let id = RoomId::parse(child["state_key"].as_str()?).ok()?;
            Some((id, via_of(&child["content"], own)))
        });
        children.collect()
    }

    /// What a client is told of it.
    pub fn summary(&self) -> Value {
        Value::Object(self.summary.clone())
    }

    /// What a client is told of it in a hierarchy.
    pub fn with_children(&self) -> Result<Box<RawValue>> {
        let mut summary = self.summary();
        summary["children_state"] = json!(self.children.clone().unwrap_or_default());
        to_raw_value(&summary).map_err(|error| ApiError::internal(&error))
    }
}
