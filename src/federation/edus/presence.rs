//! The presence of remote users: in memory, for those who share a room.

use hearth_core::limits;
use hearth_users::{PresenceState, RemoteStatus};
use ruma::ServerName;
use serde_json::Value;

use super::{Edus, Outcome, Refused, user_of};

/// So many users of one message are looked at.
const USERS_MAX: usize = 1_000;

impl Edus {
    pub(super) fn presence(&self, origin: &ServerName, content: &Value) -> Outcome {
        let push = content["push"].as_array();
        let push = push.ok_or(Refused::Because("it has no list `push`"))?;
        for one in push.iter().take(USERS_MAX) {
            let Ok(user) = user_of(origin, &one["user_id"]) else {
                continue;
            };
            let Some(state) = one["presence"].as_str().and_then(PresenceState::parse) else {
                continue;
            };
            if !self.rooms.shares_with_remote(user)? {
                continue;
            }
            let status = one["status_msg"].as_str();
            let status = status.filter(|text| text.len() <= limits::STATUS_MESSAGE_MAX_BYTES);
            self.users.presence().set_remote(
                user,
                RemoteStatus {
                    state,
                    status_msg: status.map(str::to_owned),
                    last_active_ago_ms: one["last_active_ago"].as_u64(),
                    currently_active: one["currently_active"].as_bool().unwrap_or(false),
                },
            );
        }
        Ok(())
    }
}
