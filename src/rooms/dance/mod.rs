//! Memberships that need another server: joining, leaving and knocking through one that is in the room, and inviting
//! a user of another (server-server API, "Joining rooms" to "Knocking upon a room").

use std::collections::HashMap;
use std::sync::Arc;

use hearth_core::tasks;
use hearth_events::{Draft, Pdu};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName, UserId};
use serde_json::{Map, Value, json};

use crate::{Error, Made, RemoteFailure, Room, Rooms};

mod accept;
mod awaited;
mod invite;
mod join;
mod joining;
mod leaving;
mod outside;

pub use awaited::Awaited;
pub(crate) use joining::Joining;
pub(crate) use leaving::OwnLeaves;

/// How many servers are tried for one membership.
const SERVERS_TRIED_MAX: usize = 8;

/// How many of those that did not answer a moment ago, which are tried last: each may cost ten seconds once more.
const RESTING_TRIED_MAX: usize = 3;

/// Length of the opaque part of event ids in room versions 1 and 2.
const EVENT_ID_CHARS: usize = 24;

/// Takes a membership through another server to its end, also where the client that asked for it goes away meanwhile: that
/// server takes it for done once it was asked, and a room that is filled in by half is none.
async fn to_its_end<T: Send + 'static>(
    step: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    // Nothing comes where it panicked.
    let outcome = tasks::to_its_end("membership", step).await;
    outcome.unwrap_or(Err(Error::Damaged("membership")))
}

impl Room {
    /// Whether this server decides about the room by itself: it is in it, or nobody else is.
    pub fn is_decided_here(&self) -> bool {
        self.is_resident() || self.other_servers().is_empty()
    }

    /// The other servers that have joined members in the room, also those that a partial state does not show.
    pub fn other_servers(&self) -> Vec<OwnedServerName> {
        let mut servers = self.servers();
        servers.retain(|name| *name != self.0.rooms.server_name);
        servers
    }
}

impl Rooms {
    /// Tries servers one after the other, those that did not answer a moment ago last; the error is of the first one, or
    /// better that of one which refused.
    async fn through<T, F>(
        self: &Arc<Self>,
        via: &[OwnedServerName],
        mut attempt: impl FnMut(OwnedServerName) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut failure = None;
        for server in self.servers_to_try(via) {
            match attempt(server.clone()).await {
                Ok(done) => return Ok(done),
                Err(error) => {
                    tracing::info!(%error, %server, "a membership through another server failed");
                    let refused = matches!(&error, Error::Remote(RemoteFailure::Refused { .. }));
                    if refused || failure.is_none() {
                        failure = Some(error);
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::NotFound("No known server is in this room".to_owned())))
    }

    /// Servers to try, each once: those first that are not known to be away.
    fn servers_to_try(&self, via: &[OwnedServerName]) -> Vec<OwnedServerName> {
        let is_resting = |server| self.remote().is_ok_and(|remote| remote.is_resting(server));
        let (mut order, mut resting) = (Vec::new(), Vec::new());
        for server in via.iter().filter(|server| **server != self.server_name) {
            let part = match is_resting(server) {
                true => &mut resting,
                false => &mut order,
            };
            if !part.contains(server) {
                part.push(server.clone());
            }
        }
        resting.truncate(RESTING_TRIED_MAX);
        order.extend(resting);
        order.truncate(SERVERS_TRIED_MAX);
        order
    }

    /// Completes the event that `server` proposed, and signs it, unless it proposed another event than it was asked for. Only
    /// what must come from there is taken.
    fn complete(
        &self,
        server: &ServerName,
        made: &Made,
        room_id: &RoomId,
        user: &UserId,
        membership: &str,
        mut content: Map<String, Value>,
    ) -> Result<(&'static hearth_events::Rules, Pdu), Error> {
        let rules = hearth_events::rules(&made.version)
            .ok_or_else(|| Error::IncompatibleVersion(made.version.to_string()))?;
        content.insert("membership".to_owned(), json!(membership));
        check_proposed(made, room_id, user, membership).map_err(|field| RemoteFailure::Failed {
            server: server.to_owned(),
            why: format!("it proposed an event with a wrong {field}"),
        })?;
        let proposed = made.event.get("content").and_then(Value::as_object);
        if let Some(authorizer) = proposed.and_then(|content| content.get("join_authorised_via_users_server"))
        {
            content.insert("join_authorised_via_users_server".to_owned(), authorizer.clone());
        }
        let content = hearth_events::canonical::to_bytes(&Value::Object(content), rules.strict_json())?;
        let mut hashes = HashMap::new();
        let prev = references(made, "prev_events", &mut hashes)?;
        let auth = references(made, "auth_events", &mut hashes)?;
        let depth = made.event.get("depth").and_then(Value::as_u64).unwrap_or(1);
        let depth = depth.min(rules.depth_max());
        let draft = Draft {
            room_id: Some(room_id),
            sender: user,
            kind: "m.room.member",
            state_key: Some(user.as_str()),
            content: &content,
            origin_server_ts: self.clock.now_ms(),
            depth,
            prev_events: &prev,
            auth_events: &auth,
            redacts: None,
        };
        let opaque = rules
            .explicit_event_ids()
            .then(|| hearth_core::random::alphanumeric(&*self.random, EVENT_ID_CHARS));
        let hash_of = |id: &EventId| hashes.get(id).copied();
        let unsigned = hearth_events::build_with_references(rules, &draft, opaque.as_deref(), &hash_of)?;
        Ok((rules, unsigned.sign(&self.signing_key, &self.server_name)))
    }
}

/// What is wrong with a template that is not of the event that was asked for (server-server API, `make_join`, `make_leave`
/// and `make_knock`).
fn check_proposed(
    made: &Made,
    room_id: &RoomId,
    user: &UserId,
    membership: &str,
) -> Result<(), &'static str> {
    let text = |field: &str| made.event.get(field).and_then(Value::as_str);
    let content = made.event.get("content");
    let proposed = content.and_then(|content| content.get("membership")?.as_str());
    for (field, found, expected) in [
        ("type", text("type"), "m.room.member"),
        ("room_id", text("room_id"), room_id.as_str()),
        ("sender", text("sender"), user.as_str()),
        ("state_key", text("state_key"), user.as_str()),
        ("membership", proposed, membership),
    ] {
        if found != Some(expected) {
            return Err(field);
        }
    }
    Ok(())
}

/// The ids in a list of references: plain ids, or pairs of id and hashes in room versions 1 and 2. The hashes are written
/// again as they came.
fn references(
    made: &Made,
    field: &str,
    hashes: &mut HashMap<OwnedEventId, [u8; 32]>,
) -> Result<Vec<OwnedEventId>, Error> {
    let wrong = || Error::BadEvent(format!("the other server proposed an event with wrong {field}"));
    let list = made
        .event
        .get(field)
        .and_then(Value::as_array)
        .ok_or_else(wrong)?;
    list.iter()
        .map(|entry| {
            let id = entry.as_str().or_else(|| entry.get(0).and_then(Value::as_str));
            let id = id.and_then(|id| OwnedEventId::try_from(id).ok());
            let id = id.ok_or_else(wrong)?;
            let hash = entry.pointer("/1/sha256").and_then(Value::as_str);
            let hash = hash.and_then(hearth_events::base64_decode);
            let hash = hash.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            hashes.extend(hash.map(|hash| (id.clone(), hash)));
            Ok(id)
        })
        .collect()
}

/// Whether an event is a member event of this membership, by a user of `origin` about himself.
fn is_own_membership(pdu: &Pdu, origin: &ServerName, membership: &str) -> bool {
    pdu.kind() == "m.room.member"
        && pdu.state_key() == Some(pdu.sender().as_str())
        && pdu.sender().server_name() == origin
        && crate::Membership::of_content(pdu.content()) == crate::Membership::from_word(membership)
}
