//! What rooms need of other servers. The federation crate implements it; rooms decide about what comes back.

use std::collections::HashMap;

use async_trait::async_trait;
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId};
use serde_json::{Map, Value};

/// Why another server did not help: the sentence for the log and, where the other server itself refused, its
/// error for the client.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteFailure {
    /// It answered with a Matrix error.
    #[error("{server} refused: {errcode}: {message}")]
    Refused {
        /// Who.
        server: OwnedServerName,
        /// The HTTP status.
        status: u16,
        /// The Matrix error code.
        errcode: String,
        /// Its sentence.
        message: String,
        /// The whole body of the error, an object.
        body: Map<String, Value>,
    },
    /// It did not answer, or with something that makes no sense.
    #[error("{server} cannot be asked: {why}")]
    Failed {
        /// Who.
        server: OwnedServerName,
        /// Why.
        why: String,
    },
}

impl RemoteFailure {
    /// Whether the same question will get the same answer: the other server understood it and said no.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused { status, .. } => (400..500).contains(status) && *status != 429,
            Self::Failed { .. } => false,
        }
    }
}

/// Events as other servers give them: JSON, unchecked.
pub type RemoteEvents = Vec<Box<serde_json::value::RawValue>>;

/// A key that is wanted: its server, its id, and when it has to be valid (milliseconds of Unix time; 0 where that
/// does not count).
pub type KeyAt = (OwnedServerName, String, u64);

/// The answer of `/state_ids`: the state before an event.
#[derive(Clone, Debug, Default)]
pub struct StateIds {
    /// The state events.
    pub state: Vec<OwnedEventId>,
    /// Their auth chains.
    pub auth_chain: Vec<OwnedEventId>,
}

/// The answer of `/state`.
#[derive(Debug, Default)]
pub struct RemoteState {
    /// The state events.
    pub state: RemoteEvents,
    /// Their auth chains.
    pub auth_chain: RemoteEvents,
}

/// Which of the two-step membership changes ("make" and "send").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dance {
    /// `make_join`, `send_join`
    Join,
    /// `make_leave`, `send_leave`
    Leave,
    /// `make_knock`, `send_knock`
    Knock,
}

/// The answer of a "make" request.
#[derive(Clone, Debug)]
pub struct Made {
    /// The room version; 1 where the answer names none.
    pub version: RoomVersionId,
    /// The event to complete, sign and send.
    pub event: Map<String, Value>,
}

/// The answer of `send_join` v2.
#[derive(Debug, Default)]
pub struct SendJoin {
    /// The state before the join.
    pub state: RemoteEvents,
    /// The auth chain of the state and of the join.
    pub auth_chain: RemoteEvents,
    /// The join event where the resident server signed it too (restricted rooms).
    pub event: Option<Box<serde_json::value::RawValue>>,
    /// Whether most members are left out of `state`.
    pub members_omitted: bool,
    /// The servers in the room, where members are left out.
    pub servers_in_room: Vec<OwnedServerName>,
}

type Answer<T> = Result<T, RemoteFailure>;

/// Other servers, as rooms see them. Each method asks one server once, within a bounded time, and never an event's
/// worth more than the limits of the specification.
#[async_trait]
pub trait RemoteServers: Send + Sync {
    /// Whether a server did not answer a moment ago. What a user waits for asks it all the same, but others first.
    fn is_resting(&self, server: &ServerName) -> bool;
    /// `GET /_matrix/federation/v1/event/{eventId}`
    async fn event(&self, server: &ServerName, id: &EventId) -> Answer<Box<serde_json::value::RawValue>>;
    /// `POST /_matrix/federation/v1/get_missing_events/{roomId}`
    async fn missing_events(
        &self,
        server: &ServerName,
        room: &RoomId,
        earliest: &[OwnedEventId],
        latest: &[OwnedEventId],
        limit: usize,
    ) -> Answer<RemoteEvents>;
    /// `GET /_matrix/federation/v1/backfill/{roomId}`
    async fn backfill(
        &self,
        server: &ServerName,
        room: &RoomId,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Answer<RemoteEvents>;
    /// `GET /_matrix/federation/v1/state_ids/{roomId}`
    async fn state_ids(&self, server: &ServerName, room: &RoomId, at: &EventId) -> Answer<StateIds>;
    /// `GET /_matrix/federation/v1/state/{roomId}`
    async fn state(&self, server: &ServerName, room: &RoomId, at: &EventId) -> Answer<RemoteState>;
    /// `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`
    async fn event_auth(&self, server: &ServerName, room: &RoomId, id: &EventId) -> Answer<RemoteEvents>;
    /// `GET /_matrix/federation/v1/timestamp_to_event/{roomId}`
    async fn timestamp_to_event(
        &self,
        server: &ServerName,
        room: &RoomId,
        ts: u64,
        forwards: bool,
    ) -> Answer<(OwnedEventId, u64)>;
    /// `GET /_matrix/federation/v1/make_{join,leave,knock}/{roomId}/{userId}`; join and knock name the room
    /// versions that this server knows.
    async fn make(&self, dance: Dance, server: &ServerName, room: &RoomId, user: &UserId) -> Answer<Made>;
    /// `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`. The other server may leave most members out
    /// (MSC3706): the user is in the room at once, and the rest is fetched behind.
    async fn send_join(
        &self,
        server: &ServerName,
        room: &RoomId,
        id: &EventId,
        event: &[u8],
    ) -> Answer<SendJoin>;
    /// `PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`
    async fn send_leave(&self, server: &ServerName, room: &RoomId, id: &EventId, event: &[u8]) -> Answer<()>;
    /// `PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}`: the stripped state of the room.
    async fn send_knock(
        &self,
        server: &ServerName,
        room: &RoomId,
        id: &EventId,
        event: &[u8],
    ) -> Answer<Vec<Value>>;
    /// `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`, v1 where the other server knows only that: the event
    /// with the other server's signature.
    async fn invite(
        &self,
        server: &ServerName,
        version: &RoomVersionId,
        room: &RoomId,
        id: &EventId,
        event: &[u8],
        stripped: &[Value],
    ) -> Answer<Box<serde_json::value::RawValue>>;
    /// `POST /_matrix/policy/v1/sign`: the signature by which a policy server recommends an event, made with its key of
    /// this id.
    async fn policy_sign(&self, server: &ServerName, key_id: &str, event: &[u8]) -> Answer<String>;
    /// The public keys of servers by key id, each as it was valid at a time (milliseconds of Unix time). Keys that
    /// cannot be had, or were not valid then, are left out. Asks the servers themselves and the notaries, and
    /// remembers.
    async fn keys(&self, wanted: &[KeyAt]) -> HashMap<KeyAt, [u8; 32]>;
}
