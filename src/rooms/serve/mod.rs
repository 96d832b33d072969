//! What other servers are given of a room (server-server API): auth chains, state before an event, missing events,
//! back-fill, and templates for coming and going.
//!
//! Nothing here writes, and everything reads what is published. Who asks was authenticated by the API, which also asks
//! [`Room::acl_allows`] and [`Room::has_server`] first. Events go out as they are stored; what the asking server may
//! not see goes out redacted.

mod auth_chain;
mod event_rooms;
mod hierarchy;
mod join;
mod state;
mod template;
mod visible;
mod walk;

pub(crate) use event_rooms::EventRooms;
pub use join::JoinAnswer;
pub use state::ServedState;
pub use visible::ServerViewer;
pub(crate) use visible::membership_of;
pub use walk::Missing;

use std::sync::Arc;

use hearth_events::ServerAcl;
use ruma::{EventId, OwnedServerName, ServerName};

use crate::{Error, Event, Room, event::Flags};

impl Room {
    /// Whether the room's access control list lets a server take part (server-server API, "Server Access Control
    /// Lists"). A room without such a list lets everybody.
    pub fn acl_allows(&self, server: &ServerName) -> Result<bool, Error> {
        let event = self.state("m.room.server_acl", "")?;
        Ok(event.is_none_or(|event| ServerAcl::parse(event.pdu.content()).allows(server)))
    }

    /// Runs a part of an answer that may be large on the threads for such work, of which there are few: whole states and
    /// long walks hold up no other request.
    pub async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Room) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let room = self.clone();
        self.0.rooms.pool.run(move || work(&room)).await
    }

    /// Whether this server has a joined member in the room: only then it knows the room as it is now.
    pub fn is_resident(&self) -> bool {
        self.has_server(self.0.rooms.server_name.as_str())
    }

    /// The servers with joined members, in the order of their names.
    pub fn servers(&self) -> Vec<OwnedServerName> {
        let mut servers: std::collections::BTreeSet<OwnedServerName> = {
            let head = self.0.head.lock();
            let servers = head.servers.keys();
            servers
                .filter_map(|name| OwnedServerName::try_from(name.as_str()).ok())
                .collect()
        };
        // While the state is partial, the server that let us in said who there is.
        servers.extend(self.partial_servers());
        servers.into_iter().collect()
    }

    /// An event that other servers may be given at all: one with a place in the room's graph that was not rejected.
    pub(crate) fn served_event(&self, id: &EventId) -> Result<Arc<Event>, Error> {
        let event = self.event_by_id(id)?.filter(|event| is_served(event));
        event.ok_or_else(|| Error::NotFound(format!("event {id} is not known here")))
    }
}

/// Whether an event was placed in the graph, with the state before it known, and not rejected. Soft-failed events are
/// handled as any other between servers.
pub(crate) fn is_served(event: &Event) -> bool {
    !event.header.flags.has(Flags::OUTLIER) && !event.header.flags.has(Flags::REJECTED)
}
