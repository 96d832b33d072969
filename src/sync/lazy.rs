//! What each device was sent of members, so that lazily loaded members are not sent again and again
//! (client-server API, "Lazy-loading room members").
//!
//! It lives in memory, and forgetting is always right: a member may be sent twice. It is good only for
//! the sync that goes on from the answer in which it was sent: a client that asks with another token
//! may never have got that answer.

use std::collections::{BTreeMap, HashMap};

use hearth_rooms::Short;
use hearth_storage::EntityKey;
use ruma::OwnedUserId;

use crate::SyncToken;

/// Members that one device is remembered to know; beyond it the memory starts afresh.
const MEMBERS_PER_DEVICE_MAX: usize = 20_000;

/// Devices of one user that are remembered.
const DEVICES_MAX: usize = 20;

/// A member that a device was sent.
pub(crate) type SentMember = (EntityKey, OwnedUserId, Short);

/// The memory of all devices of a user.
#[derive(Default)]
pub(crate) struct LazyMembers {
    devices: BTreeMap<String, DeviceMembers>,
}

#[derive(Default)]
struct DeviceMembers {
    token: SyncToken,
    rooms: HashMap<EntityKey, HashMap<OwnedUserId, Short>>,
    count: usize,
}

impl LazyMembers {
    /// What a device that goes on from `since` knows: forgets it all where that is not the last answer.
    pub(crate) fn resume(&mut self, device: &str, since: Option<&SyncToken>) {
        if self
            .devices
            .get(device)
            .is_some_and(|members| Some(&members.token) != since)
        {
            self.devices.remove(device);
        }
    }

    /// Whether a device knows a member's event.
    pub(crate) fn knows(&self, device: &str, member: &SentMember) -> bool {
        let Some(members) = self.devices.get(device) else {
            return false;
        };
        members.rooms.get(&member.0).and_then(|room| room.get(&member.1)) == Some(&member.2)
    }

    /// Notes what an answer with a token sends. Rooms of which it tells anew begin afresh: a client may
    /// have forgotten what it knew of them before.
    pub(crate) fn sent(
        &mut self,
        device: &str,
        token: &SyncToken,
        anew: &[EntityKey],
        members: Vec<SentMember>,
    ) {
        if !self.devices.contains_key(device) {
            if members.is_empty() {
                return;
            }
            if self.devices.len() >= DEVICES_MAX {
                self.devices.clear();
            }
        }
        let memory = self.devices.entry(device.to_owned()).or_default();
        memory.token = token.clone();
        for room in anew {
            memory.count -= memory.rooms.remove(room).map_or(0, |room| room.len());
        }
        if memory.count + members.len() > MEMBERS_PER_DEVICE_MAX {
            memory.rooms.clear();
            memory.count = 0;
        }
        for (room, user, short) in members {
            let is_new = memory
                .rooms
                .entry(room)
                .or_default()
                .insert(user, short)
                .is_none();
            memory.count += usize::from(is_new);
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn memory_is_good_for_the_last_answer_only() {
        let mut lazy = LazyMembers::default();
        let token = |user| SyncToken {
            user,
            ..SyncToken::default()
        };
        let member = (
            EntityKey {
                slot: hearth_storage::slot_of("!r:x"),
                no: 1,
            },
            user_id!("@a:x").to_owned(),
            7,
        );
        lazy.sent("D", &token(1), &[], vec![member.clone()]);
        lazy.resume("D", Some(&token(1)));
        assert!(lazy.knows("D", &member));
        assert!(!lazy.knows("E", &member));
        assert!(
            !lazy.knows("D", &(member.0, member.1.clone(), 8)),
            "another event of the member"
        );
        lazy.sent("D", &token(2), &[], vec![]);
        lazy.resume("D", Some(&token(1)));
        assert!(!lazy.knows("D", &member));
        lazy.sent("D", &token(3), &[], vec![member.clone()]);
        lazy.sent("D", &token(4), &[member.0], vec![]);
        assert!(!lazy.knows("D", &member), "told anew of the room");
        lazy.resume("D", None);
        assert!(!lazy.knows("D", &member));
    }
}
