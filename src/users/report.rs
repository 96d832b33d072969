//! What users reported to the administrators: events, rooms, users. Stored by time in the `reports` view.

use std::sync::Arc;

use hearth_core::SharedRandom;
use hearth_storage::{Family, Log, record, slot_of};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::keys;
use crate::write::Lanes;

/// The view's name. A key goes on with the time u64 and four random bytes.
const VIEW: &str = "reports";

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who reports.
    pub reporter: OwnedUserId,
    /// The room, for reports of events and rooms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_id: Option<OwnedRoomId>,
    /// The event, for reports of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<OwnedEventId>,
    /// The user, for reports of users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<OwnedUserId>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// How bad, from -100 to 0, as older clients say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<i64>,
    /// When.
    pub ts: u64,
}

/// All reports.
pub struct Reports {
    log: Arc<Log>,
    lanes: Arc<Lanes>,
    random: SharedRandom,
    server_name: OwnedServerName,
}

impl Reports {
    pub(crate) fn new(
        log: Arc<Log>,
        lanes: Arc<Lanes>,
        random: SharedRandom,
        server_name: OwnedServerName,
    ) -> Self {
        Self {
            log,
            lanes,
            random,
            server_name,
        }
    }

    /// Stores a report. Its text is cut to what is worth reading.
    pub async fn add(&self, mut report: Report) -> Result<()> {
        let mut cut = report.reason.len().min(hearth_core::limits::REASON_MAX_BYTES);
        while !report.reason.is_char_boundary(cut) {
            cut -= 1;
        }
        report.reason.truncate(cut);
        let mut rest = report.ts.to_be_bytes().to_vec();
        let mut random = [0u8; 4];
        self.random.fill(&mut random);
        rest.extend_from_slice(&random);
        self.lanes
            .write(slot_of(self.server_name.as_str()), |tx| {
                tx.put(Family::View, keys::view(VIEW, &rest), record::encode(&report));
                Ok(())
            })
            .await
    }

    /// The newest reports.
    pub fn newest(&self, limit: usize) -> Result<Vec<Report>> {
        let prefix = keys::view(VIEW, &[]);
        let mut found = Vec::new();
        self.log.engine().scan(
            Family::View,
            &prefix,
            &hearth_storage::prefix_end(&prefix),
            true,
            &mut |_, value| {
                found.extend(record::decode::<Report>(value));
                found.len() < limit
            },
        )?;
        Ok(found)
    }
}
