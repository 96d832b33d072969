//! What people are shown of the events that wait for rooms.

use std::time::Duration;

use ruma::{OwnedRoomId, OwnedServerName};

use super::Inbound;

/// What waits for a room.
#[derive(Clone, Debug)]
pub struct RoomStatus {
    /// The room.
    pub room: OwnedRoomId,
    /// The servers whose events wait.
    pub origins: Vec<OriginStatus>,
}

/// What of one server waits for a room.
#[derive(Clone, Debug)]
pub struct OriginStatus {
    /// The server.
    pub origin: OwnedServerName,
    /// How many of its events wait.
    pub waiting: usize,
    /// When the oldest of them arrived, in milliseconds since the epoch.
    pub oldest_ms: u64,
    /// How often in a row its events failed for a passing reason.
    pub failures: u32,
    /// How long they are put off from now on.
    pub paused: Duration,
}

impl RoomStatus {
    /// Whether events of it are put off because they failed.
    pub fn is_quarantined(&self) -> bool {
        self.origins.iter().any(|origin| origin.failures > 0)
    }
}

impl Inbound {
    /// The rooms for which events wait.
    pub fn status(&self) -> Vec<RoomStatus> {
        let all = self.queues.iter().map(|queue| queue.status());
        all.filter(|room| !room.origins.is_empty()).collect()
    }
}
