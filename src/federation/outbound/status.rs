//! What people are shown of the queues to other servers.

use std::collections::BTreeSet;

use hearth_rooms::{Error, Short};
use ruma::{OwnedRoomId, OwnedServerName, ServerName};
use tokio::time::Instant;

use super::Outbound;
use super::destination::{Destination, State};

/// The state of one server's queue.
#[derive(Clone, Debug)]
pub struct DestinationStatus {
    /// The server.
    pub server: OwnedServerName,
    /// How many events wait in memory or are on their way.
    pub queued_pdus: usize,
    /// How many other messages: to devices (roughly), of device lists, ephemeral ones.
    pub queued_edus: usize,
    /// In how many rooms it misses something.
    pub rooms_behind: usize,
    /// How often in a row it failed.
    pub failures: u32,
    /// When the first of these failures was, in milliseconds since the epoch.
    pub failing_since_ms: Option<u64>,
    /// When it was last tried, in milliseconds since the epoch; of a server that fails.
    pub tried_ms: Option<u64>,
    /// The pause between that attempt and the next one.
    pub pause_ms: u64,
    /// The last error.
    pub last_error: Option<String>,
    /// What sort of error it was, one of a few words: `status_502`, `timeout`, …
    pub error_class: Option<String>,
}

impl DestinationStatus {
    /// How much waits for it, for an order.
    pub fn waiting(&self) -> usize {
        self.queued_pdus + self.queued_edus + self.rooms_behind
    }
}

impl Outbound {
    /// The servers for which something waits, and those that fail.
    pub fn status(&self) -> Vec<DestinationStatus> {
        let all = self.destinations.iter();
        let all = all.map(|destination| self.status_in_memory(&destination));
        all.filter(|status| status.waiting() > 0 || status.failures > 0)
            .collect()
    }

    /// All servers that were ever sent something that had to be kept, and those that are sent something now; by name.
    pub fn known_servers(&self) -> Result<Vec<OwnedServerName>, Error> {
        let mut known: BTreeSet<OwnedServerName> = self.rows.servers()?.into_iter().collect();
        known.extend(
            self.destinations
                .iter()
                .map(|destination| destination.name.clone()),
        );
        Ok(known.into_iter().collect())
    }

    /// The state of one server's queue; `None` where nothing is known of it.
    pub fn status_of(&self, server: &ServerName) -> Result<Option<DestinationStatus>, Error> {
        if let Some(destination) = self.destinations.get(server) {
            return Ok(Some(self.status_in_memory(&destination)));
        }
        if !self.rows.is_known(server)? {
            return Ok(None);
        }
        // Not kept in memory: `waiting` is read for this answer alone.
        let destination = Destination::new(server.to_owned(), self.rows.waiting(server)?);
        Ok(Some(self.status_in_memory(&destination)))
    }

    /// The rooms of which a server misses something, with the newest event for it; `None` where nothing is known of it.
    pub fn rooms_behind(&self, server: &ServerName) -> Result<Option<Vec<(OwnedRoomId, Short)>>, Error> {
        if let Some(destination) = self.destinations.get(server) {
            let state = destination.state.lock();
            let rooms = state.rooms.iter();
            return Ok(Some(
                rooms.map(|(room, row)| (room.clone(), row.newest)).collect(),
            ));
        }
        if !self.rows.is_known(server)? {
            return Ok(None);
        }
        let rooms = self.rows.waiting(server)?.rooms.into_iter();
        Ok(Some(rooms.map(|(room, row)| (room, row.newest)).collect()))
    }

    fn status_in_memory(&self, destination: &Destination) -> DestinationStatus {
        let state = destination.state.lock();
        let fails = state.failures > 0;
        let tried = state.tried_at.filter(|_| fails);
        let ago = |tried: Instant| u64::try_from(tried.elapsed().as_millis()).unwrap_or(u64::MAX);
        let pause = state.retry_at.zip(tried);
        let pause = pause.map_or(0, |(retry, tried)| {
            retry.saturating_duration_since(tried).as_millis()
        });
        DestinationStatus {
            server: destination.name.clone(),
            queued_pdus: state.queue.len() + state.in_flight.0,
            queued_edus: state.waiting_edus(),
            rooms_behind: state.rooms.len(),
            failures: state.failures,
            failing_since_ms: state.failing_since_ms.filter(|_| fails),
            tried_ms: tried.map(|tried| self.clock.now_ms().saturating_sub(ago(tried))),
            pause_ms: u64::try_from(pause).unwrap_or(u64::MAX),
            last_error: state.last_error.as_ref().map(ToString::to_string),
            error_class: state.last_error.as_ref().map(super::Failure::class),
        }
    }
}

impl State {
    /// Messages to devices and device lists stand in their queues until they are acknowledged, ephemeral ones do not.
    fn waiting_edus(&self) -> usize {
        self.to_device_waiting + self.lists.len() + self.ephemera.len() + self.in_flight.1
    }
}
