//! The queue of each pusher: what it is still to be told.

use std::collections::BTreeSet;

use hearth_storage::schema::push_queue::PushQueueKey;
use hearth_storage::{Batch, Engine, EntityKey, Family, Position, ShardId, prefix_end, record};
use ruma::push::Action;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Whom a queue is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    pub(crate) user: OwnedUserId,
    pub(crate) key: EntityKey,
    pub(crate) app_id: String,
    pub(crate) pushkey: String,
}

/// Something to be told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Whose pusher.
    pub(crate) user: OwnedUserId,
    /// The event; none where only the counts changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<ItemEvent>,
    /// Whether counts are told only where others are known to have been told last: those of a change that clients
    /// learn of by themselves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) corrects: bool,
    /// When it was queued, in milliseconds since 1970.
    pub(crate) ts: u64,
}

/// The event to be told of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ItemEvent {
    pub(crate) room_id: OwnedRoomId,
    /// The event's number in its room; 0 for an invitation to a room that is not here, as the user's room list has it.
    pub(crate) short: u32,
    /// Its id, for the number may name another one: of a room that was removed meanwhile and joined anew. Rows of earlier
    /// versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) event_id: Option<OwnedEventId>,
    /// What the push rules say.
    pub(crate) actions: Vec<Action>,
}

impl ItemEvent {
    /// Whether this is the event that is to be told of, by its id.
    pub(crate) fn is(&self, id: &EventId) -> bool {
        self.event_id.as_ref().is_none_or(|own| own == id)
    }
}

/// Where in the feed an item comes from. Each item has a row of its own, also where it tells of counts alone: a row that is
/// being sent is not changed by what comes meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) shard: u16,
    pub(crate) position: Position,
    pub(crate) index: u16,
}

impl Source {
    /// The place of a second item that comes from the same item of the feed.
    pub(crate) fn beside(self) -> Self {
        Self {
            index: self.index.wrapping_add(1 << 15),
            ..self
        }
    }
}

pub(crate) fn put(batch: &mut Batch, target: &Target, source: Source, item: &Item) {
    let row = PushQueueKey {
        user: target.key,
        app_id: target.app_id.as_str().into(),
        pushkey: target.pushkey.as_str().into(),
        position: source.position,
        shard: ShardId(source.shard),
        index: source.index,
    };
    batch.put(Family::PushQueue, row.encode(), record::encode(item));
}

fn prefix(target: &Target) -> Vec<u8> {
    let row = PushQueueKey {
        user: target.key,
        app_id: target.app_id.as_str().into(),
        pushkey: target.pushkey.as_str().into(),
        position: 0,
        shard: ShardId(0),
        index: 0,
    };
    let mut row = row.encode();
    // What follows the pushkey are position, shard and index.
    row.truncate(row.len() - 12);
    row
}

/// The oldest rows of a queue.
#[derive(Default)]
pub(crate) struct First {
    pub(crate) items: Vec<(Vec<u8>, Item)>,
    /// Rows that cannot be read.
    pub(crate) unreadable: Vec<Vec<u8>>,
}

/// Reads the oldest rows of a queue.
pub(crate) fn first(engine: &dyn Engine, target: &Target, limit: usize) -> Result<First, Error> {
    let start = prefix(target);
    let mut found = First::default();
    engine.scan(
        Family::PushQueue,
        &start,
        &prefix_end(&start),
        false,
        &mut |row, value| {
            match record::decode(value) {
                Ok(item) => found.items.push((row.to_vec(), item)),
                Err(_) => found.unreadable.push(row.to_vec()),
            }
            found.items.len() + found.unreadable.len() < limit
        },
    )?;
    Ok(found)
}

/// Takes rows out, durably: what was sent is not sent again.
pub(crate) fn remove(engine: &dyn Engine, rows: &[Vec<u8>]) -> Result<(), Error> {
    let mut batch = Batch::new();
    for row in rows {
        batch.delete(Family::PushQueue, row.clone());
    }
    Ok(engine.write(&batch, true)?)
}

/// How many rows are taken out in one write.
const REMOVED_AT_ONCE: usize = 1_024;

/// Takes out what nobody is told of any more where much has gathered: what is older than `oldest`, and all but the newest
/// item of each room and of the counts.
pub(crate) fn compact(engine: &dyn Engine, target: &Target, oldest: u64) -> Result<(), Error> {
    let start = prefix(target);
    loop {
        let mut newest: BTreeSet<Option<OwnedRoomId>> = BTreeSet::new();
        let mut stale = Vec::new();
        engine.scan(
            Family::PushQueue,
            &start,
            &prefix_end(&start),
            true,
            &mut |row, value| {
                let told = record::decode::<Item>(value).is_ok_and(|item| {
                    item.ts >= oldest && newest.insert(item.event.map(|event| event.room_id))
                });
                if !told {
                    stale.push(row.to_vec());
                }
                stale.len() < REMOVED_AT_ONCE
            },
        )?;
        if !stale.is_empty() {
            remove(engine, &stale)?;
        }
        if stale.len() < REMOVED_AT_ONCE {
            return Ok(());
        }
    }
}

/// Empties a queue.
pub(crate) fn clear(engine: &dyn Engine, target: &Target) -> Result<(), Error> {
    let start = prefix(target);
    let mut batch = Batch::new();
    batch.delete_range(Family::PushQueue, start.clone(), prefix_end(&start));
    Ok(engine.write(&batch, true)?)
}

/// The queues that hold anything.
pub(crate) fn targets(engine: &dyn Engine) -> Result<Vec<Target>, Error> {
    let mut found: Vec<Target> = Vec::new();
    engine.scan(Family::PushQueue, &[], &[0xFF], false, &mut |row, value| {
        let key = PushQueueKey::decode(row);
        if let (Some(key), Ok(item)) = (key, record::decode::<Item>(value)) {
            let target = Target {
                user: item.user,
                key: key.user,
                app_id: key.app_id.0.into_owned(),
                pushkey: key.pushkey.0.into_owned(),
            };
            if found.last() != Some(&target) {
                found.push(target);
            }
        }
        true
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use hearth_storage::MemoryEngine;

    use super::*;

    fn target() -> Target {
        Target {
            user: ruma::user_id!("@a:b").to_owned(),
            key: EntityKey::from_bytes([0, 1, 0, 0, 0, 1]).expect("a key"),
            app_id: "app".to_owned(),
            pushkey: "key".to_owned(),
        }
    }

    #[test]
    fn rows_of_earlier_versions_are_read() {
        let read = |text: &str| -> Item {
            record::decode(&[&[record::JSON_V1], text.as_bytes()].concat()).expect("it is read")
        };
        let old = read(r#"{"user":"@a:b","event":{"room_id":"!one","short":7,"actions":["notify"]},"ts":5}"#);
        let old = old.event.expect("an event");
        assert_eq!((old.short, old.event_id.as_ref()), (7, None));
        assert!(old.is(ruma::event_id!("$any")), "nothing says which it was");
        let text = r#"{"user":"@a:b","event":{"room_id":"!one","short":7,"event_id":"$e","actions":["notify"]},"ts":5}"#;
        let new = read(text).event.expect("an event");
        assert!(new.is(ruma::event_id!("$e")) && !new.is(ruma::event_id!("$any")));
        assert_eq!(record::encode(&read(text))[1..], *text.as_bytes());
    }

    #[test]
    fn what_gathers_while_nobody_takes_it_stays_small() {
        let engine = MemoryEngine::new();
        let rooms = [ruma::room_id!("!one"), ruma::room_id!("!two")];
        let mut batch = Batch::new();
        for number in 0..3_000_u64 {
            let room = rooms[usize::try_from(number % 2).expect("small")];
            let told = ItemEvent {
                room_id: room.to_owned(),
                short: u32::try_from(number).expect("small"),
                event_id: None,
                actions: Vec::new(),
            };
            let item = Item {
                user: target().user,
                event: (number % 5 > 0).then_some(told),
                corrects: false,
                ts: number,
            };
            let source = Source {
                shard: 0,
                position: number,
                index: 0,
            };
            put(&mut batch, &target(), source, &item);
        }
        engine.write(&batch, true).expect("written");
        compact(&engine, &target(), 10).expect("compacted");
        let left = first(&engine, &target(), 100).expect("read").items;
        let times: Vec<u64> = left.iter().map(|(_, item)| item.ts).collect();
        assert_eq!(times, [2_995, 2_998, 2_999]);
        compact(&engine, &target(), 5_000).expect("compacted");
        assert!(first(&engine, &target(), 100).expect("read").items.is_empty());
    }
}
