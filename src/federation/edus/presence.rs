//! The presence of remote users: in memory, for those who share a room.
//!
//! A server that lets a user of this one into a room tells at once who of it is present there. That may come before the
//! join is done here, so what is said of strangers is kept for a while: it counts when they come into sight.

use std::time::Duration;

use hearth_core::limits;
use hearth_rooms::Error;
use hearth_users::{PresenceState, RemoteStatus};
use quick_cache::sync::Cache;
use ruma::{OwnedUserId, ServerName, UserId};
use serde_json::Value;
use tokio::time::Instant;

use super::{Edus, Outcome, Refused, user_of};

/// So many users of one message are looked at.
const USERS_MAX: usize = 1_000;
/// What is said of so many strangers is kept, and for so long: joining a large room takes a few minutes.
const STRANGERS_MAX: usize = 1_000;
const STRANGERS_KEPT: Duration = Duration::from_secs(5 * 60);

/// What was said of users who share no room with anybody here, and when.
pub(super) struct Strangers(Cache<OwnedUserId, (Instant, RemoteStatus)>);

impl Default for Strangers {
    fn default() -> Self {
        Self(Cache::new(STRANGERS_MAX))
    }
}

impl Strangers {
    fn keep(&self, user: &UserId, status: RemoteStatus) {
        self.0.insert(user.to_owned(), (Instant::now(), status));
    }

    /// What was said of a user, as it is now.
    fn take(&self, user: &UserId) -> Option<RemoteStatus> {
        let (_, (at, mut status)) = self.0.remove(user)?;
        let passed = at.elapsed();
        let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        status.last_active_ago_ms = status.last_active_ago_ms.map(|ago| ago.saturating_add(passed_ms));
        Some(status).filter(|_| passed < STRANGERS_KEPT)
    }
}

impl Edus {
    pub(super) fn presence(&self, origin: &ServerName, content: &Value) -> Outcome {
        let push = content["push"].as_array();
        let push = push.ok_or(Refused::Because("it has no list `push`"))?;
        for one in push.iter().take(USERS_MAX) {
            let Ok(user) = user_of(origin, &one["user_id"]) else {
                continue;
            };
            let Some(status) = read(one) else { continue };
            match self.rooms.shares_with_remote(user)? {
                true => self.users.presence().set_remote(user, status),
                false => self.strangers.keep(user, status),
            }
        }
        Ok(())
    }

    /// Users of other servers have come into sight, or gone out of it: what was said of those who came counts.
    pub(super) fn meet(&self, strangers: &[OwnedUserId]) -> Result<(), Error> {
        for user in strangers {
            if let Some(status) = self.strangers.take(user)
                && self.rooms.shares_with_remote(user)?
            {
                self.users.presence().set_remote(user, status);
            }
        }
        Ok(())
    }
}

fn read(one: &Value) -> Option<RemoteStatus> {
    let status_msg = one["status_msg"].as_str();
    let status_msg = status_msg.filter(|text| text.len() <= limits::STATUS_MESSAGE_MAX_BYTES);
    Some(RemoteStatus {
        state: one["presence"].as_str().and_then(PresenceState::parse)?,
        status_msg: status_msg.map(str::to_owned),
        last_active_ago_ms: one["last_active_ago"].as_u64(),
        currently_active: one["currently_active"].as_bool().unwrap_or(false),
    })
}
