//! Thread subscriptions (MSC4306): which threads a user wants to hear of.

use std::collections::BTreeSet;

use hearth_storage::schema::thread_subscription::ThreadSubscriptionKey;
use hearth_storage::{Family, Position, Reader, prefix_end, record};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::data;
use crate::error::{Error, Result};
use crate::keys;
use crate::user::User;
use crate::view::View;

/// How many threads a user may have a row for: all of them are read where a client begins anew.
const THREADS_PER_USER_MAX: usize = 10_000;

/// A thread and what a user has said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadSubscription {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event at which the thread begins.
    pub root: OwnedEventId,
    /// Whether the user is subscribed.
    pub subscribed: bool,
    /// Whether the user's client subscribed by itself.
    pub automatic: bool,
    /// Where in the user's shard it last changed.
    pub position: Position,
}

/// What a request to subscribe came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribing {
    /// The user is subscribed.
    Subscribed,
    /// The user unsubscribed after the event that gives rise to this.
    Unsubscribed,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Row {
    subscribed: bool,
    automatic: bool,
    /// Up to which number the room had events when the user unsubscribed last.
    #[serde(default)]
    seen: u64,
    position: Position,
}

impl Row {
    fn of(self, room_id: OwnedRoomId, root: OwnedEventId) -> ThreadSubscription {
        ThreadSubscription {
            room_id,
            root,
            subscribed: self.subscribed,
            automatic: self.automatic,
            position: self.position,
        }
    }
}

impl User {
    /// Subscribes to a thread. `cause` is the number, in its room, of the event because of which a client does so by
    /// itself; none where the user wants it. What the user wants stays so.
    pub async fn subscribe_thread(
        &self,
        room: &RoomId,
        root: &EventId,
        cause: Option<u64>,
    ) -> Result<Subscribing> {
        self.change_thread(room, root, |row| {
            let automatic = cause.is_some();
            if row.subscribed && (automatic || !row.automatic) {
                return (Subscribing::Subscribed, false);
            }
            if !row.subscribed && cause.is_some_and(|cause| cause <= row.seen) {
                return (Subscribing::Unsubscribed, false);
            }
            (row.subscribed, row.automatic) = (true, automatic);
            (Subscribing::Subscribed, true)
        })
        .await
    }

    /// Unsubscribes from a thread. `seen` is the number of the room's newest event: what is not after it gives rise to no
    /// new subscription.
    pub async fn unsubscribe_thread(&self, room: &RoomId, root: &EventId, seen: u64) -> Result<()> {
        self.change_thread(room, root, |row| {
            if !row.subscribed {
                return ((), false);
            }
            (row.subscribed, row.automatic, row.seen) = (false, false, seen);
            ((), true)
        })
        .await
    }

    /// Changes the row of a thread; `change` says besides whether it did.
    async fn change_thread<T>(
        &self,
        room: &RoomId,
        root: &EventId,
        change: impl FnOnce(&mut Row) -> (T, bool),
    ) -> Result<T> {
        let at = keys::thread(self.key, room.as_str(), root.as_str());
        self.write(|tx| {
            let stored = tx.get(Family::ThreadSubscription, &at)?;
            let is_new = stored.is_none();
            let mut row: Row = stored
                .map(|bytes| record::decode(&bytes))
                .transpose()?
                .unwrap_or_default();
            let (outcome, changed) = change(&mut row);
            if !changed {
                return Ok(outcome);
            }
            if is_new {
                let others = tx.scan(Family::ThreadSubscription, &self.key.to_bytes())?.len();
                if others >= THREADS_PER_USER_MAX {
                    return Err(Error::TooMany("You have subscribed to too many threads"));
                }
                if others == 0 {
                    // Now it is known that a client of the user's goes by subscriptions.
                    data::follow_subscriptions(tx, self.key, &self.id)?;
                }
            }
            row.position = tx.position();
            tx.put(Family::ThreadSubscription, at, record::encode(&row));
            tx.changed(Change::Thread {
                room: room.to_owned(),
                root: root.to_owned(),
            })?;
            Ok(outcome)
        })
        .await
    }

    /// The threads of a room to which the user is subscribed.
    pub fn subscribed_threads(&self, room: &RoomId) -> Result<BTreeSet<OwnedEventId>> {
        let prefix = keys::thread(self.key, room.as_str(), "");
        let all = rows(self.users.log.engine().as_ref(), &prefix)?;
        let subscribed = all.into_iter().filter(|thread| thread.subscribed);
        Ok(subscribed.map(|thread| thread.root).collect())
    }
}

impl View<'_> {
    /// What the user has said of a thread, if anything.
    pub fn thread(&self, room: &RoomId, root: &EventId) -> Result<Option<ThreadSubscription>> {
        let row = keys::thread(self.key(), room.as_str(), root.as_str());
        let value = self.reader().get(Family::ThreadSubscription, &row)?;
        let row: Option<Row> = value.map(|bytes| record::decode(&bytes)).transpose()?;
        Ok(row.map(|row| row.of(room.to_owned(), root.to_owned())))
    }

    /// What changed of the user's threads after a position up to and including another, the newest first.
    pub fn threads_between(&self, since: Position, until: Position) -> Result<Vec<ThreadSubscription>> {
        let mut found = rows(self.reader(), &self.key().to_bytes())?;
        found.retain(|thread| thread.position > since && thread.position <= until);
        found.sort_unstable_by_key(|thread| std::cmp::Reverse(thread.position));
        Ok(found)
    }
}

fn rows(reader: &dyn Reader, prefix: &[u8]) -> Result<Vec<ThreadSubscription>> {
    let (mut found, mut failed) = (Vec::new(), None);
    reader.scan(
        Family::ThreadSubscription,
        prefix,
        &prefix_end(prefix),
        false,
        &mut |row, value| {
            match (read_key(row), record::decode::<Row>(value)) {
                (Some((room, root)), Ok(value)) => found.push(value.of(room, root)),
                (_, Err(error)) => failed = Some(error),
                (None, _) => {}
            }
            failed.is_none()
        },
    )?;
    failed.map_or(Ok(found), |error| Err(error.into()))
}

fn read_key(row: &[u8]) -> Option<(OwnedRoomId, OwnedEventId)> {
    let key = ThreadSubscriptionKey::decode(row)?;
    let room = OwnedRoomId::try_from(&*key.room.0).ok()?;
    Some((room, OwnedEventId::try_from(&*key.root.0).ok()?))
}

#[cfg(test)]
mod tests {
    use ruma::{event_id, room_id};

    use super::*;
    use crate::tests::World;

    #[tokio::test]
    async fn an_automatic_subscription_does_not_come_back_after_it_was_ended() {
        let world = World::new();
        let alice = world.alice().await;
        let (room, root) = (room_id!("!r:example.org"), event_id!("$root"));
        let subscribe = async |cause: Option<u64>| alice.subscribe_thread(room, root, cause).await.unwrap();
        let state = || {
            let thread = alice.now().thread(room, root).unwrap();
            thread.map(|thread| (thread.subscribed, thread.automatic))
        };
        alice.unsubscribe_thread(room, root, 9).await.unwrap();
        assert_eq!(state(), None, "nothing was there to be ended");
        for (cause, unsubscribe, expected, after) in [
            (Some(2), None, Subscribing::Subscribed, (true, true)),
            (Some(2), None, Subscribing::Subscribed, (true, true)),
            (None, None, Subscribing::Subscribed, (true, false)),
            (Some(3), None, Subscribing::Subscribed, (true, false)),
            (Some(4), Some(4), Subscribing::Unsubscribed, (false, false)),
            (Some(3), None, Subscribing::Unsubscribed, (false, false)),
            (Some(5), None, Subscribing::Subscribed, (true, true)),
            (None, Some(6), Subscribing::Subscribed, (true, false)),
        ] {
            if let Some(seen) = unsubscribe {
                alice.unsubscribe_thread(room, root, seen).await.unwrap();
            }
            assert_eq!(subscribe(cause).await, expected, "{cause:?}");
            assert_eq!(state(), Some(after), "{cause:?}");
        }
    }

    #[tokio::test]
    async fn a_thread_stands_in_the_stream_once_at_its_last_change() {
        let world = World::new();
        let alice = world.alice().await;
        let room = room_id!("!r:example.org");
        for root in [event_id!("$a"), event_id!("$b")] {
            alice.subscribe_thread(room, root, None).await.unwrap();
        }
        let middle = alice.position();
        alice.unsubscribe_thread(room, event_id!("$a"), 1).await.unwrap();
        let roots = |since| {
            let found = alice.now().threads_between(since, Position::MAX).unwrap();
            found
                .into_iter()
                .map(|thread| thread.root.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(roots(0), ["$a", "$b"]);
        assert_eq!(roots(middle), ["$a"]);
        assert_eq!(
            alice.changes_since(middle).unwrap().len(),
            1,
            "and the user's sync is woken by it"
        );
        let world = world.restarted(2);
        let alice = world.users.get(crate::tests::alice_id()).unwrap().unwrap();
        assert_eq!(
            alice.subscribed_threads(room).unwrap(),
            BTreeSet::from([event_id!("$b").to_owned()])
        );
    }
}
