//! Who is typing: kept in memory by the room's owner, never written to disk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ruma::{OwnedUserId, UserId};

use crate::{Change, Room};

/// The longest time that one call may claim.
const TYPING_MAX_MS: u64 = 120_000;

/// The users who type in one room.
#[derive(Default)]
pub(crate) struct Typing {
    /// Until when, in milliseconds since 1970.
    until_ms: BTreeMap<OwnedUserId, u64>,
    /// Value of the rooms' counter at the last change; 0 where there was none.
    changed: u64,
}

impl Typing {
    pub(crate) fn is_empty(&self) -> bool {
        self.until_ms.is_empty()
    }
}

impl Room {
    /// Notes that a user types for `timeout_ms` from now, or has stopped. The caller has checked
    /// that the user is in the room.
    pub fn set_typing(&self, user: &UserId, timeout_ms: Option<u64>) {
        let now = self.0.rooms.clock.now_ms();
        let changed = {
            let mut typing = self.0.typing.lock();
            let changed = match timeout_ms {
                Some(timeout) => {
                    let until = now + timeout.min(TYPING_MAX_MS);
                    typing.until_ms.insert(user.to_owned(), until).is_none()
                }
                None => typing.until_ms.remove(user).is_some(),
            };
            if changed {
                typing.changed = self.0.rooms.next_ephemeral();
            }
            changed
        };
        if let Some(timeout) = timeout_ms {
            self.expire_later(timeout.min(TYPING_MAX_MS));
        }
        if changed {
            self.typing_changed();
        }
    }

    /// Who types, and the counter's value at the last change.
    pub fn typing(&self) -> (Vec<OwnedUserId>, u64) {
        let typing = self.0.typing.lock();
        (typing.until_ms.keys().cloned().collect(), typing.changed)
    }

    fn typing_changed(&self) {
        let change = Change {
            typing: true,
            ..Change::default()
        };
        self.0.rooms.notify(self, &change, self.view().position, &[]);
    }

    fn expire_later(&self, after_ms: u64) {
        let weak = Arc::downgrade(&self.0);
        hearth_core::tasks::spawn("typing expiry", async move {
            tokio::time::sleep(Duration::from_millis(after_ms + 1)).await;
            if let Some(inner) = weak.upgrade() {
                Room(inner).expire_typing();
            }
        });
    }

    fn expire_typing(&self) {
        let now = self.0.rooms.clock.now_ms();
        let changed = {
            let mut typing = self.0.typing.lock();
            let before = typing.until_ms.len();
            typing.until_ms.retain(|_, until| *until > now);
            let changed = typing.until_ms.len() != before;
            if changed {
                typing.changed = self.0.rooms.next_ephemeral();
            }
            changed
        };
        if changed {
            self.typing_changed();
        }
    }
}
