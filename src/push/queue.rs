//! The queue of each pusher: what it is still to be told.

use hearth_storage::schema::push_queue::PushQueueKey;
use hearth_storage::{Batch, Engine, EntityKey, Family, Position, ShardId, prefix_end, record};
use ruma::push::Action;
use ruma::{OwnedRoomId, OwnedUserId};
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
    /// When it was queued, in milliseconds since 1970.
    pub(crate) ts: u64,
}

/// The event to be told of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ItemEvent {
    pub(crate) room_id: OwnedRoomId,
    /// The event's number in its room.
    pub(crate) short: u32,
    /// What the push rules say.
    pub(crate) actions: Vec<Action>,
}

/// Where in the feed an item comes from; the place of counts, of which one is enough, is before all others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Source {
    pub(crate) shard: u16,
    pub(crate) position: Position,
    pub(crate) index: u16,
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

/// The oldest items of a queue.
pub(crate) fn first(
    engine: &dyn Engine,
    target: &Target,
    limit: usize,
) -> Result<Vec<(Vec<u8>, Item)>, Error> {
    let start = prefix(target);
    let (mut found, mut failed) = (Vec::new(), None);
    engine.scan(
        Family::PushQueue,
        &start,
        &prefix_end(&start),
        false,
        &mut |row, value| {
            match record::decode(value) {
                Ok(item) => found.push((row.to_vec(), item)),
                Err(error) => failed = Some(error),
            }
            failed.is_none() && found.len() < limit
        },
    )?;
    failed.map_or(Ok(found), |error| Err(error.into()))
}

/// Takes rows out, durably: what was sent is not sent again.
pub(crate) fn remove(engine: &dyn Engine, rows: &[Vec<u8>]) -> Result<(), Error> {
    let mut batch = Batch::new();
    for row in rows {
        batch.delete(Family::PushQueue, row.clone());
    }
    Ok(engine.write(&batch, true)?)
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
