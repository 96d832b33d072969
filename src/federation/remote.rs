//! What rooms ask of other servers, as requests of the server-server API. What comes back is bounded and has the right
//! shape; whether it is true, the rooms decide.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hearth_core::http::OutboundResponse;
use hearth_core::limits::PDU_MAX_BYTES;
use hearth_events::Rules;
use hearth_rooms::{
    Dance, KeyAt, Made, RemoteEvents, RemoteFailure, RemoteServers, RemoteState, SendJoin, StateIds,
};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::client::{self, Asker, Client, FedRequest, encode};
use crate::error::ClientError;
use crate::keys::ServerKeys;

/// The state of the largest rooms: `send_join` of a room with 100,000 members is about 80 MB.
pub const STATE_MAX_BYTES: usize = 150 << 20;
/// A resident server computes and sends that in a minute or two; the joining user waits for it.
const STATE_TIMEOUT: Duration = Duration::from_secs(180);
/// Ids of the state: a tenth of the events.
const STATE_IDS_MAX_BYTES: usize = 20 << 20;
/// The stripped state of a room that somebody knocks on, and the template of an event.
const SMALL_MAX_BYTES: usize = 1 << 20;
/// Whoever makes a template or signs an invitation may have to resolve the state first.
const DANCE_TIMEOUT: Duration = Duration::from_secs(60);
/// An event with the white space that its sender may have put in. The size of the event proper is judged with its format.
const EVENT_TEXT_MAX_BYTES: usize = 2 * PDU_MAX_BYTES;
/// The most events that are asked for at once: other servers give no more than a hundred.
const PAGE_MAX_EVENTS: usize = 100;
/// The most servers that are listed as being in a room: the largest have a fifth of it.
const SERVERS_MAX: usize = 50_000;
/// Somebody waits for an event to be sent, or a room for the next event, while the policy server thinks.
const POLICY_TIMEOUT: Duration = Duration::from_secs(10);
/// The answer of a policy server is one signature.
const POLICY_MAX_BYTES: usize = 16 << 10;
/// The most stripped events of a room.
const STRIPPED_MAX: usize = 100;

type Answer<T> = Result<T, RemoteFailure>;

/// Other servers, for rooms.
pub struct Remote {
    client: Arc<Client>,
    keys: Arc<ServerKeys>,
}

impl Remote {
    /// Other servers by signed requests.
    pub fn new(client: Arc<Client>, keys: Arc<ServerKeys>) -> Self {
        Self { client, keys }
    }

    async fn json<T: DeserializeOwned>(&self, request: FedRequest) -> Answer<T> {
        self.client.json(request).await.map_err(failure)
    }

    /// Asks the newer endpoint and, where the other server does not know it, the older one, whose answer is the second
    /// member of an array.
    async fn newer_or_older<T: DeserializeOwned>(&self, newer: FedRequest, older: FedRequest) -> Answer<T> {
        let server = newer.destination.clone();
        match self.client.request(newer).await {
            Ok(response) => read(&server, &response),
            Err(error) if error.is_unrecognized() => {
                let (_, answer): (Value, T) = self.json(older).await?;
                Ok(answer)
            }
            Err(error) => Err(failure(error)),
        }
    }
}

/// A step of a membership that somebody waits for.
fn step(request: FedRequest) -> FedRequest {
    request
        .timeout(DANCE_TIMEOUT)
        .max_response_bytes(SMALL_MAX_BYTES)
        .asker(Asker::Actor)
}

fn failure(error: ClientError) -> RemoteFailure {
    match error {
        ClientError::Status {
            server,
            status,
            errcode,
            error,
            body,
        } => RemoteFailure::Refused {
            server,
            status,
            errcode,
            message: error,
            body,
        },
        other => failed(other.server(), other.to_string()),
    }
}

fn failed(server: &ServerName, why: impl Into<String>) -> RemoteFailure {
    RemoteFailure::Failed {
        server: server.to_owned(),
        why: why.into(),
    }
}

fn read<T: DeserializeOwned>(server: &ServerName, response: &OutboundResponse) -> Answer<T> {
    client::parse(server, response).map_err(failure)
}

/// An event of ours as the body of a request.
fn event_body(server: &ServerName, event: &[u8]) -> Answer<Value> {
    serde_json::from_slice(event).map_err(|error| failed(server, format!("our event: {error}")))
}

fn federation_path(version: &str, segments: &[&str]) -> String {
    let mut path = format!("/_matrix/federation/{version}");
    for segment in segments {
        path.push('/');
        path.push_str(&encode(segment));
    }
    path
}

/// Only events of a size that could be one, and no more than were asked for.
fn bounded(mut events: RemoteEvents, most: usize) -> RemoteEvents {
    events.retain(|event| event.get().len() <= EVENT_TEXT_MAX_BYTES);
    events.truncate(most);
    events
}

#[derive(Deserialize)]
struct Pdus {
    pdus: RemoteEvents,
}

#[derive(Deserialize)]
struct MissingEvents {
    #[serde(default)]
    events: RemoteEvents,
}

#[derive(Deserialize)]
struct StateIdsBody {
    pdu_ids: Vec<OwnedEventId>,
    auth_chain_ids: Vec<OwnedEventId>,
}

#[derive(Deserialize)]
struct StateBody {
    pdus: RemoteEvents,
    auth_chain: RemoteEvents,
}

#[derive(Deserialize)]
struct AuthChain {
    auth_chain: RemoteEvents,
}

#[derive(Deserialize)]
struct Timestamp {
    event_id: OwnedEventId,
    origin_server_ts: u64,
}

#[derive(Deserialize)]
struct MadeBody {
    room_version: Option<RoomVersionId>,
    event: Map<String, Value>,
}

#[derive(Deserialize)]
struct SendJoinBody {
    state: RemoteEvents,
    auth_chain: RemoteEvents,
    event: Option<Box<RawValue>>,
    #[serde(default)]
    members_omitted: bool,
    #[serde(default)]
    servers_in_room: Vec<String>,
}

#[derive(Deserialize)]
struct SendKnockBody {
    #[serde(default)]
    knock_room_state: Vec<Value>,
}

#[derive(Deserialize)]
struct InviteBody {
    event: Box<RawValue>,
}

#[async_trait]
impl RemoteServers for Remote {
    fn is_resting(&self, server: &ServerName) -> bool {
        self.client.resting_ms(server).is_some()
    }

    async fn event(&self, server: &ServerName, id: &EventId) -> Answer<Box<RawValue>> {
        let request = FedRequest::get(server, federation_path("v1", &["event", id.as_str()]));
        let answer: Pdus = self.json(request.max_response_bytes(SMALL_MAX_BYTES)).await?;
        let event = bounded(answer.pdus, 1).pop();
        event.ok_or_else(|| failed(server, "the answer has no event"))
    }

    async fn missing_events(
        &self,
        server: &ServerName,
        room: &RoomId,
        earliest: &[OwnedEventId],
        latest: &[OwnedEventId],
        limit: usize,
    ) -> Answer<RemoteEvents> {
        let limit = limit.min(PAGE_MAX_EVENTS);
        let body = json!({
            "earliest_events": earliest,
            "latest_events": latest,
            "limit": limit,
            "min_depth": 0,
        });
        let path = federation_path("v1", &["get_missing_events", room.as_str()]);
        let answer: MissingEvents = self.json(FedRequest::post(server, path, body)).await?;
        Ok(bounded(answer.events, limit))
    }

    async fn backfill(
        &self,
        server: &ServerName,
        room: &RoomId,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Answer<RemoteEvents> {
        let limit = limit.min(PAGE_MAX_EVENTS);
        let mut path = federation_path("v1", &["backfill", room.as_str()]);
        let _ = write!(path, "?limit={limit}");
        for id in from {
            let _ = write!(path, "&v={}", encode(id.as_str()));
        }
        let request = FedRequest::get(server, path).asker(Asker::Reader);
        let answer: Pdus = self.json(request).await?;
        Ok(bounded(answer.pdus, limit))
    }

    async fn state_ids(&self, server: &ServerName, room: &RoomId, at: &EventId) -> Answer<StateIds> {
        let path = federation_path("v1", &["state_ids", room.as_str()]);
        let path = format!("{path}?event_id={}", encode(at.as_str()));
        let request = FedRequest::get(server, path).timeout(STATE_TIMEOUT);
        let answer: StateIdsBody = self.json(request.max_response_bytes(STATE_IDS_MAX_BYTES)).await?;
        Ok(StateIds {
            state: answer.pdu_ids,
            auth_chain: answer.auth_chain_ids,
        })
    }

    async fn state(&self, server: &ServerName, room: &RoomId, at: &EventId) -> Answer<RemoteState> {
        let path = federation_path("v1", &["state", room.as_str()]);
        let path = format!("{path}?event_id={}", encode(at.as_str()));
        let request = FedRequest::get(server, path).timeout(STATE_TIMEOUT);
        let answer: StateBody = self.json(request.max_response_bytes(STATE_MAX_BYTES)).await?;
        Ok(RemoteState {
            state: bounded(answer.pdus, usize::MAX),
            auth_chain: bounded(answer.auth_chain, usize::MAX),
        })
    }

    async fn event_auth(&self, server: &ServerName, room: &RoomId, id: &EventId) -> Answer<RemoteEvents> {
        let path = federation_path("v1", &["event_auth", room.as_str(), id.as_str()]);
        let answer: AuthChain = self.json(FedRequest::get(server, path)).await?;
        Ok(bounded(answer.auth_chain, usize::MAX))
    }

    async fn timestamp_to_event(
        &self,
        server: &ServerName,
        room: &RoomId,
        ts: u64,
        forwards: bool,
    ) -> Answer<(OwnedEventId, u64)> {
        let path = federation_path("v1", &["timestamp_to_event", room.as_str()]);
        let path = format!("{path}?ts={ts}&dir={}", if forwards { 'f' } else { 'b' });
        let request = FedRequest::get(server, path).max_response_bytes(SMALL_MAX_BYTES);
        let answer: Timestamp = self.json(request.asker(Asker::Reader)).await?;
        Ok((answer.event_id, answer.origin_server_ts))
    }

    async fn make(&self, dance: Dance, server: &ServerName, room: &RoomId, user: &UserId) -> Answer<Made> {
        let verb = match dance {
            Dance::Join => "make_join",
            Dance::Leave => "make_leave",
            Dance::Knock => "make_knock",
        };
        let mut path = federation_path("v1", &[verb, room.as_str(), user.as_str()]);
        if dance != Dance::Leave {
            for (at, rules) in Rules::all().iter().enumerate() {
                let _ = write!(path, "{}ver={}", if at == 0 { '?' } else { '&' }, rules.version);
            }
        }
        let request = step(FedRequest::get(server, path));
        let made: MadeBody = self.json(request).await?;
        Ok(Made {
            version: made.room_version.unwrap_or(RoomVersionId::V1),
            event: made.event,
        })
    }

    async fn send_join(
        &self,
        server: &ServerName,
        room: &RoomId,
        id: &EventId,
        event: &[u8],
    ) -> Answer<SendJoin> {
        let body = event_body(server, event)?;
        let request = |version: &str, query: &str| {
            let path = federation_path(version, &["send_join", room.as_str(), id.as_str()]);
            FedRequest::put(server, format!("{path}{query}"), body.clone())
                .timeout(STATE_TIMEOUT)
                .max_response_bytes(STATE_MAX_BYTES)
                .asker(Asker::Actor)
        };
        let newer = request("v2", "?omit_members=true");
        let answer: SendJoinBody = self.newer_or_older(newer, request("v1", "")).await?;
        let servers = answer.servers_in_room.into_iter().take(SERVERS_MAX);
        Ok(SendJoin {
            state: bounded(answer.state, usize::MAX),
            auth_chain: bounded(answer.auth_chain, usize::MAX),
            event: answer.event,
            members_omitted: answer.members_omitted,
            servers_in_room: servers
                .filter_map(|name| OwnedServerName::try_from(name).ok())
                .collect(),
        })
    }

    async fn send_leave(&self, server: &ServerName, room: &RoomId, id: &EventId, event: &[u8]) -> Answer<()> {
        let body = event_body(server, event)?;
        let request = |version: &str| {
            let path = federation_path(version, &["send_leave", room.as_str(), id.as_str()]);
            step(FedRequest::put(server, path, body.clone()))
        };
        self.newer_or_older::<Value>(request("v2"), request("v1")).await?;
        Ok(())
    }

    async fn send_knock(
        &self,
        server: &ServerName,
        room: &RoomId,
        id: &EventId,
        event: &[u8],
    ) -> Answer<Vec<Value>> {
        let path = federation_path("v1", &["send_knock", room.as_str(), id.as_str()]);
        let request = step(FedRequest::put(server, path, event_body(server, event)?));
        let mut answer: SendKnockBody = self.json(request).await?;
        answer.knock_room_state.truncate(STRIPPED_MAX);
        Ok(answer.knock_room_state)
    }

    async fn invite(
        &self,
        server: &ServerName,
        version: &RoomVersionId,
        room: &RoomId,
        id: &EventId,
        event: &[u8],
        stripped: &[Value],
    ) -> Answer<Box<RawValue>> {
        let event = event_body(server, event)?;
        let request = |api: &str, body: Value| {
            let path = federation_path(api, &["invite", room.as_str(), id.as_str()]);
            step(FedRequest::put(server, path, body))
        };
        let newer = json!({
            "room_version": version,
            "event": event,
            "invite_room_state": stripped,
        });
        let newer = request("v2", newer);
        // A server that knows only the old endpoint takes the room for one of version 1 or 2.
        let old_room = hearth_events::rules(version).is_some_and(Rules::explicit_event_ids);
        let answer: InviteBody = if old_room {
            let mut older = event;
            older["unsigned"]["invite_room_state"] = stripped.into();
            self.newer_or_older(newer, request("v1", older)).await?
        } else {
            self.json(newer).await?
        };
        Ok(answer.event)
    }

    async fn policy_sign(&self, server: &ServerName, key_id: &str, event: &[u8]) -> Answer<String> {
        let body = event_body(server, event)?;
        let request = FedRequest::post(server, "/_matrix/policy/v1/sign", body)
            .timeout(POLICY_TIMEOUT)
            .max_response_bytes(POLICY_MAX_BYTES);
        let mut answer: HashMap<String, HashMap<String, String>> = self.json(request).await?;
        answer
            .get_mut(server.as_str())
            .and_then(|keys| keys.remove(key_id))
            .ok_or_else(|| failed(server, "its signature is missing"))
    }

    async fn keys(&self, wanted: &[KeyAt]) -> HashMap<KeyAt, [u8; 32]> {
        self.keys.keys(wanted).await
    }
}

#[cfg(test)]
mod tests;
