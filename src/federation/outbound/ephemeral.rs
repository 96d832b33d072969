//! What is sent once and not kept: typing, receipts, presence. The newest of each sort wins, and it is bounded.

use std::collections::VecDeque;

use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

/// So many wait for one server; the oldest give way. None of it is missed for long.
const EPHEMERA_MAX: usize = 500;
/// So many wait for one that does not answer: there may be thousands of those, many for good.
const FAILING_EPHEMERA_MAX: usize = 100;

/// What an ephemeral message is about: a newer one about the same replaces it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EphemeralKey {
    /// Whether a user types in a room.
    Typing(OwnedRoomId, OwnedUserId),
    /// How far a user has read in a room, or in a thread of it.
    Receipt(OwnedRoomId, OwnedUserId, Option<String>),
    /// A user's presence.
    Presence(OwnedUserId),
}

impl EphemeralKey {
    fn edu(&self, content: Value) -> Value {
        let edu_type = match self {
            Self::Typing(..) => "m.typing",
            Self::Receipt(..) => "m.receipt",
            Self::Presence(_) => "m.presence",
        };
        json!({ "edu_type": edu_type, "content": content })
    }
}

/// The messages that wait for one server.
#[derive(Default)]
pub(crate) struct Ephemera(VecDeque<(EphemeralKey, Value)>);

impl Ephemera {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds one for a server that fails, or does not.
    pub(crate) fn push(&mut self, key: EphemeralKey, content: Value, fails: bool) {
        if let Some(at) = self.0.iter().position(|(other, _)| *other == key) {
            self.0.remove(at);
        }
        self.0.push_back((key, content));
        let max = match fails {
            true => FAILING_EPHEMERA_MAX,
            false => EPHEMERA_MAX,
        };
        self.0.drain(..self.0.len().saturating_sub(max));
    }

    /// Takes out at most so many, as EDUs.
    pub(crate) fn take(&mut self, limit: usize) -> Vec<Value> {
        let count = limit.min(self.0.len());
        self.0
            .drain(..count)
            .map(|(key, content)| key.edu(content))
            .collect()
    }

    /// Forgets what makes no sense later.
    pub(crate) fn forget_typing(&mut self) {
        self.0.retain(|(key, _)| !matches!(key, EphemeralKey::Typing(..)));
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_user_id};

    use super::*;

    #[test]
    fn the_newest_wins_and_the_oldest_gives_way() {
        let mut ephemera = Ephemera::default();
        let typing = EphemeralKey::Typing(owned_room_id!("!r:a"), owned_user_id!("@u:a"));
        ephemera.push(typing.clone(), json!({ "typing": true }), false);
        ephemera.push(
            EphemeralKey::Presence(owned_user_id!("@u:a")),
            json!({ "push": [] }),
            false,
        );
        ephemera.push(typing.clone(), json!({ "typing": false }), false);
        let taken = ephemera.take(10);
        assert_eq!(
            taken,
            [
                json!({ "edu_type": "m.presence", "content": { "push": [] } }),
                json!({ "edu_type": "m.typing", "content": { "typing": false } }),
            ]
        );
        for at in 0..EPHEMERA_MAX + 5 {
            let user = OwnedUserId::try_from(format!("@u{at}:a")).unwrap();
            ephemera.push(EphemeralKey::Presence(user), json!({ "at": at }), false);
        }
        assert_eq!(ephemera.take(1)[0]["content"]["at"], 5);
        ephemera.push(typing.clone(), json!({}), false);
        ephemera.forget_typing();
        assert_eq!(ephemera.len(), EPHEMERA_MAX - 1);
        ephemera.push(typing, json!({}), true);
        assert_eq!(ephemera.len(), FAILING_EPHEMERA_MAX, "the server does not answer");
        assert_eq!(
            ephemera.take(1_000)[0]["content"]["at"],
            EPHEMERA_MAX + 5 - FAILING_EPHEMERA_MAX + 1
        );
    }
}
