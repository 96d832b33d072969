//! Own leaves that other servers took, of rooms that were not here. Somebody else of this server may be joining such a room
//! at the same time, through a server that does not know of the leave: the room would hold who has left for invited.

use std::sync::Arc;

use hearth_events::Pdu;
use quick_cache::sync::Cache;
use ruma::{EventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};

use crate::{Error, Membership, Room, receive::Manner};

/// So many leaves are remembered, one of each user and room. They are of use only to a join about the same time.
const LEAVES_MAX: usize = 1_000;

/// So many servers of the room are asked for what came before a leave where the one that took it does not say.
const SERVERS_MAX: usize = 3;

/// Leaves that are in no room here.
pub(crate) struct OwnLeaves(Cache<(OwnedRoomId, OwnedUserId), Arc<OwnLeave>>);

impl Default for OwnLeaves {
    fn default() -> Self {
        Self(Cache::new(LEAVES_MAX))
    }
}

/// A leave, with the server that took it.
pub(super) struct OwnLeave {
    pub(super) server: OwnedServerName,
    pub(super) pdu: Pdu,
}

impl OwnLeaves {
    pub(super) fn add(&self, room_id: &RoomId, user: &UserId, leave: OwnLeave) {
        self.0
            .insert((room_id.to_owned(), user.to_owned()), Arc::new(leave));
    }

    /// Whether a user has left who is invited or knocks by an event.
    pub(crate) fn have_ended(&self, room_id: &RoomId, user: &UserId, member_event: &EventId) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let leave = self.0.get(&(room_id.to_owned(), user.to_owned()));
        leave.is_some_and(|leave| leave.pdu.auth_events().iter().any(|id| *id == *member_event))
    }

    fn of_room(&self, room_id: &RoomId) -> Vec<Arc<OwnLeave>> {
        let of_room = self.0.iter().filter(|((room, _), _)| room == room_id);
        of_room.map(|(_, leave)| leave).collect()
    }

    fn forget(&self, room_id: &RoomId, leave: &OwnLeave) {
        let key = (room_id.to_owned(), leave.pdu.sender().to_owned());
        self.0
            .remove_if(&key, |found| found.pdu.event_id == leave.pdu.event_id);
    }
}

impl Room {
    /// Takes in the leaves that other servers took before the room was here.
    pub(super) async fn take_own_leaves(&self) {
        for leave in self.0.rooms.own_leaves.of_room(self.id()) {
            match self.take_own_leave(&leave).await {
                Ok(()) => self.0.rooms.own_leaves.forget(self.id(), &leave),
                // It comes with what the other servers send later.
                Err(error) => {
                    tracing::info!(%error, room = %self.id(), user = %leave.pdu.sender(), "a leave is not in the room yet");
                }
            }
        }
    }

    async fn take_own_leave(&self, leave: &OwnLeave) -> Result<(), Error> {
        let mut servers = vec![leave.server.clone()];
        servers.extend(self.servers_to_ask(SERVERS_MAX));
        let mut outcome = Ok(());
        for server in servers {
            outcome = self.take_own_leave_by(&server, &leave.pdu).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Takes in a leave; what came before it is asked of a server.
    async fn take_own_leave_by(&self, server: &ServerName, pdu: &Pdu) -> Result<(), Error> {
        let _turn = self.0.receiving.lock().await;
        self.settle().await?;
        let is_waited_for = matches!(
            self.membership(pdu.sender())?,
            Membership::Invite | Membership::Knock | Membership::None
        );
        if !is_waited_for || self.placed(&pdu.event_id)?.is_some() {
            return Ok(());
        }
        let verified = self.verify_one(pdu.clone()).await?;
        match self.fetch_before(server, &verified.pdu).await {
            Ok(()) => {}
            Err(error @ Error::Storage(_)) => return Err(error),
            // It need not know the leave. The state is asked for then.
            Err(error) => tracing::debug!(%error, %server, "what came before a leave cannot be had"),
        }
        if self.placed(&pdu.event_id)?.is_some() {
            return Ok(());
        }
        let manner = Manner {
            handed_over: true,
            ..Manner::default()
        };
        self.take_in(server, verified, manner).await.map(drop)
    }
}
