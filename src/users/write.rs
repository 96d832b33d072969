//! One operation on a user: read, decide, and hand one batch to the log.
//!
//! Operations on one slot are serial: they hold a lock while they read and build, and give it back
//! before they wait for the disk. So that the next operation sees what the one before wrote, rows
//! that are submitted but not yet durable are kept beside the lock and read over the engine. A
//! result that rests on such rows is given out only when they are durable.
//!
//! Lock order: a lane, then the log's own locks. The cache's locks are taken with no lane held.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hearth_cluster::Cluster;
use hearth_storage::{
    Batch, EntityKey, Family, FeedItem, FeedKind, Log, OutboxRow, Position, Record, ShardId, Slot, Ticket,
};
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

use crate::change::{self, Change};
use crate::error::Result;
use crate::token::Hash;

/// How many lanes there are: enough that two of a few hundred concurrent operations seldom meet.
const LANES: usize = 1024;

/// Rows by family and key; `None` is a deletion.
type Rows = BTreeMap<(&'static str, Vec<u8>), (Family, Option<Vec<u8>>)>;

/// Rows that were submitted to the log and may not be readable in the engine yet.
struct Submitted {
    shard: ShardId,
    position: Position,
    rows: Rows,
}

#[derive(Default)]
struct Lane {
    submitted: VecDeque<Submitted>,
}

/// Serializes the operations of this crate, slot by slot.
pub(crate) struct Lanes {
    log: Arc<Log>,
    cluster: Arc<Cluster>,
    lanes: Vec<Mutex<Lane>>,
}

/// What a batch of this crate tells those who listen to the log in memory.
#[derive(Debug)]
pub struct UserNote {
    /// Whose data changed.
    pub user_id: OwnedUserId,
    /// The user's entity.
    pub key: EntityKey,
    /// What changed, in the order of the change stream.
    pub changes: Vec<Change>,
    /// Tokens whose record changed or went away.
    pub(crate) tokens: Vec<Hash>,
    /// Whether the account, the profile or the ignored users changed.
    pub(crate) reloads: bool,
}

/// An operation that is being built.
pub(crate) struct Tx<'a> {
    log: &'a Log,
    lane: &'a Lane,
    slot: Slot,
    ticket: Option<Ticket>,
    rows: Rows,
    /// Rows made by the log itself (new entity numbers).
    batch: Batch,
    outbox: Vec<OutboxRow>,
    subject: Option<(OwnedUserId, EntityKey)>,
    changes: Vec<Change>,
    tokens: Vec<Hash>,
}

/// What is left to wait for when an operation has been built.
enum Wait {
    Nothing,
    Durable(ShardId, Position),
    Commit(hearth_storage::Commit, bool),
}

impl Lane {
    fn forget_published(&mut self, log: &Log) {
        self.submitted
            .retain(|one| log.published(one.shard) < one.position);
        if self.submitted.is_empty() {
            self.submitted.shrink_to_fit();
        }
    }
}

impl Lanes {
    pub(crate) fn new(log: Arc<Log>, cluster: Arc<Cluster>) -> Self {
        Self {
            log,
            cluster,
            lanes: (0..LANES).map(|_| Mutex::default()).collect(),
        }
    }

    /// Runs one operation on the entities of a slot.
    pub(crate) async fn write<T>(
        &self,
        slot: Slot,
        build: impl FnOnce(&mut Tx<'_>) -> Result<T>,
    ) -> Result<T> {
        self.log.check_writable()?;
        self.write_anyway(slot, build).await
    }

    /// As [`Lanes::write`], also where the disk is nearly full: for what another entity was promised, for what removes,
    /// and for the little that reading needs.
    pub(crate) async fn write_anyway<T>(
        &self,
        slot: Slot,
        build: impl FnOnce(&mut Tx<'_>) -> Result<T>,
    ) -> Result<T> {
        let (result, wait) = self.build(slot, build);
        match wait {
            Wait::Nothing => {}
            Wait::Durable(shard, position) => self.log.wait_durable(shard, position).await?,
            Wait::Commit(commit, has_outbox) => {
                let shard = self.log.shard_of(slot);
                let position = commit.await?;
                self.forget_published(slot);
                if has_outbox {
                    self.cluster.delivered(shard, position).await;
                }
            }
        }
        result
    }

    fn lane(&self, slot: Slot) -> parking_lot::MutexGuard<'_, Lane> {
        self.lanes[usize::from(slot.get()) % LANES].lock()
    }

    /// Lets go of rows that are readable by now: a lane that is not used again would keep them for ever.
    fn forget_published(&self, slot: Slot) {
        let mut lane = self.lane(slot);
        lane.forget_published(&self.log);
    }

    fn build<T>(&self, slot: Slot, build: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> (Result<T>, Wait) {
        let mut lane = self.lane(slot);
        lane.forget_published(&self.log);
        let mut tx = Tx {
            log: &self.log,
            lane: &lane,
            slot,
            ticket: None,
            rows: Rows::new(),
            batch: Batch::new(),
            outbox: Vec::new(),
            subject: None,
            changes: Vec::new(),
            tokens: Vec::new(),
        };
        let result = build(&mut tx);
        if result.is_err() || tx.is_empty() {
            drop(tx);
            // What the result rests on is of this slot, so it is of this shard.
            let shard = self.log.shard_of(slot);
            let last = lane.submitted.iter().rev().find(|one| one.shard == shard);
            let wait = last.map_or(Wait::Nothing, |last| Wait::Durable(last.shard, last.position));
            return (result, wait);
        }
        let (ticket, record, rows) = tx.finish();
        let (shard, position) = (ticket.shard(), ticket.position());
        let has_outbox = !record.outbox.is_empty();
        let commit = ticket.submit(record);
        lane.submitted.push_back(Submitted {
            shard,
            position,
            rows,
        });
        (result, Wait::Commit(commit, has_outbox))
    }
}

impl<'a> Tx<'a> {
    /// The user this operation belongs to: its batch gets a feed item and a note.
    pub(crate) fn set_user(&mut self, user_id: &UserId, key: EntityKey) {
        self.subject = Some((user_id.to_owned(), key));
    }

    /// The position this operation will have.
    pub(crate) fn position(&mut self) -> Position {
        let (log, slot) = (self.log, self.slot);
        self.ticket
            .get_or_insert_with(|| log.reserve(log.shard_of(slot)))
            .position()
    }

    /// Reads a value as it will be when everything before this operation is durable.
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let at = (family.name(), key.to_vec());
        if let Some((_, value)) = self.rows.get(&at) {
            return Ok(value.clone());
        }
        for one in self.lane.submitted.iter().rev() {
            if let Some((_, value)) = one.rows.get(&at) {
                return Ok(value.clone());
            }
        }
        Ok(self.log.engine().get(family, key)?)
    }

    /// What was put over the engine's rows whose key begins with `prefix`; `None` is a deletion.
    fn changed_rows(&self, family: Family, prefix: &[u8]) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        let mut changed = BTreeMap::new();
        let submitted = self.lane.submitted.iter().map(|one| &one.rows);
        for rows in submitted.chain(std::iter::once(&self.rows)) {
            let of_prefix = rows
                .range((family.name(), prefix.to_vec())..)
                .take_while(|((name, key), _)| *name == family.name() && key.starts_with(prefix));
            changed.extend(of_prefix.map(|((_, key), (_, value))| (key.clone(), value.clone())));
        }
        changed
    }

    /// All rows whose key begins with `prefix`, in order.
    pub(crate) fn scan(&self, family: Family, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut found = BTreeMap::new();
        let end = hearth_storage::prefix_end(prefix);
        self.log
            .engine()
            .scan(family, prefix, &end, false, &mut |key, value| {
                found.insert(key.to_vec(), value.to_vec());
                true
            })?;
        for (key, value) in self.changed_rows(family, prefix) {
            match value {
                Some(value) => found.insert(key, value),
                None => found.remove(&key),
            };
        }
        Ok(found.into_iter().collect())
    }

    /// The keys of the first rows whose key begins with `prefix`, at most so many. Of the values none is kept: all of them
    /// may be more than fits into memory.
    pub(crate) fn first_keys(&self, family: Family, prefix: &[u8], most: usize) -> Result<Vec<Vec<u8>>> {
        let changed = self.changed_rows(family, prefix);
        let mut found = BTreeSet::new();
        let end = hearth_storage::prefix_end(prefix);
        self.log
            .engine()
            .scan(family, prefix, &end, false, &mut |key, _| {
                if changed.get(key).is_none_or(Option::is_some) {
                    found.insert(key.to_vec());
                }
                found.len() < most
            })?;
        let present = changed.into_iter().filter(|(_, value)| value.is_some());
        found.extend(present.map(|(key, _)| key));
        Ok(found.into_iter().take(most).collect())
    }

    /// The first row whose key begins with `prefix` and is not before `start`.
    pub(crate) fn first(
        &self,
        family: Family,
        start: &[u8],
        prefix: &[u8],
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let layers = || {
            let submitted = self.lane.submitted.iter().rev().map(|one| &one.rows);
            std::iter::once(&self.rows).chain(submitted)
        };
        // What the newest layer that knows a row has of it: a value, or that it is gone.
        let above = |key: &[u8]| {
            let at = (family.name(), key.to_vec());
            layers().find_map(|rows| rows.get(&at)).map(|(_, value)| value)
        };
        let mut first: Option<(Vec<u8>, Vec<u8>)> = None;
        for rows in layers() {
            let of_prefix = rows
                .range((family.name(), start.to_vec())..)
                .take_while(|((name, key), _)| *name == family.name() && key.starts_with(prefix));
            let mut there = of_prefix.filter_map(|((_, key), _)| Some((key, above(key)?.as_ref()?)));
            if let Some((key, value)) = there.next()
                && first.as_ref().is_none_or(|(first, _)| key < first)
            {
                first = Some((key.clone(), value.clone()));
            }
        }
        let end = first
            .as_ref()
            .map_or_else(|| hearth_storage::prefix_end(prefix), |(key, _)| key.clone());
        let visit = &mut |key: &[u8], value: &[u8]| {
            // What is above and there has been found already.
            if above(key).is_some() {
                return true;
            }
            first = Some((key.to_vec(), value.to_vec()));
            false
        };
        self.log.engine().scan(family, start, &end, false, visit)?;
        Ok(first)
    }

    pub(crate) fn put(&mut self, family: Family, key: Vec<u8>, value: Vec<u8>) {
        self.rows.insert((family.name(), key), (family, Some(value)));
    }

    pub(crate) fn delete(&mut self, family: Family, key: Vec<u8>) {
        self.rows.insert((family.name(), key), (family, None));
    }

    /// Notes a change for the user's change stream, in place of its older entry.
    pub(crate) fn changed(&mut self, change: Change) -> Result<()> {
        if self.changes.contains(&change) {
            return Ok(());
        }
        let Some((_, key)) = self.subject else {
            return Ok(());
        };
        let index = u16::try_from(self.changes.len()).unwrap_or(u16::MAX);
        let position = self.position();
        change::record(self, key, position, index, &change)?;
        self.changes.push(change);
        Ok(())
    }

    /// A token's record changed: caches must let go of it once this is durable.
    pub(crate) fn token_changed(&mut self, hash: Hash) {
        self.tokens.push(hash);
    }

    /// An effect on another entity.
    pub(crate) fn outbox(&mut self, row: OutboxRow) {
        self.outbox.push(row);
    }

    /// The batch for rows that the log makes itself.
    pub(crate) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.outbox.is_empty() && self.batch.is_empty()
    }

    fn finish(mut self) -> (Ticket, Record, Rows) {
        self.position();
        let mut batch = self.batch;
        for ((_, key), (family, value)) in &self.rows {
            match value {
                Some(value) => batch.put(*family, key.clone(), value.clone()),
                None => batch.delete(*family, key.clone()),
            }
        }
        let mut feed = Vec::new();
        let mut note: Option<Arc<dyn std::any::Any + Send + Sync>> = None;
        if let Some((user_id, key)) = self.subject {
            feed.push(FeedItem {
                entity: key,
                kind: FeedKind::UserChange,
                // Whether other servers may have to hear of devices.
                reference: u64::from(
                    self.changes.contains(&Change::DeviceList) || self.changes.contains(&Change::Devices),
                ),
            });
            let reloads = self.changes.iter().any(Change::is_cached);
            note = Some(Arc::new(UserNote {
                user_id,
                key,
                changes: self.changes,
                tokens: self.tokens,
                reloads,
            }));
        }
        let record = Record {
            batch,
            feed,
            outbox: self.outbox,
            note,
        };
        let (log, slot) = (self.log, self.slot);
        let ticket = self.ticket.unwrap_or_else(|| log.reserve(log.shard_of(slot)));
        (ticket, record, self.rows)
    }
}

#[cfg(test)]
mod tests {
    use hearth_storage::{LogOptions, MemoryEngine, WriterMode, slot_of};

    use super::*;
    use crate::tests::World;

    #[tokio::test]
    async fn a_lane_keeps_nothing_that_can_be_read() {
        let world = World::new();
        let alice = world.alice().await;
        let content = serde_json::value::to_raw_value(&"x".repeat(10_000)).unwrap();
        let content = format!("{{\"x\":{content}}}");
        let content = serde_json::value::RawValue::from_string(content).unwrap();
        alice
            .set_account_data(None, "org.example", &content)
            .await
            .unwrap();
        let lanes = &world.users.lanes;
        assert!(lanes.lanes.iter().all(|lane| lane.lock().submitted.is_empty()));
    }

    #[test]
    fn the_first_row_is_the_newest_layers() {
        let engine = Arc::new(MemoryEngine::new());
        let options = LogOptions {
            mode: WriterMode::Inline,
            ..LogOptions::default()
        };
        let log = Log::open_with(engine, options).unwrap();
        let lanes = Lanes::new(log.clone(), Cluster::new(log.clone()));
        let slot = slot_of("@a:x");
        let row = |name: &str| name.as_bytes().to_vec();
        let put = |tx: &mut Tx<'_>, name: &str, value: &str| tx.put(Family::View, row(name), row(value));
        let (made, _) = lanes.build(slot, |tx| {
            ["a1", "a3", "a5", "b0"]
                .iter()
                .for_each(|name| put(tx, name, "stored"));
            Ok(())
        });
        made.unwrap();
        // What comes behind an open ticket is submitted and not durable.
        let _held = log.reserve(log.shard_of(slot));
        let (submitted, _waits) = lanes.build(slot, |tx| {
            tx.delete(Family::View, row("a1"));
            put(tx, "a2", "submitted");
            put(tx, "a5", "submitted");
            Ok(())
        });
        submitted.unwrap();
        let (checked, _) = lanes.build(slot, |tx| {
            tx.delete(Family::View, row("a2"));
            put(tx, "a4", "own");
            let check = |start: &str, expected: Option<(&str, &str)>| {
                let found = tx.first(Family::View, start.as_bytes(), b"a").unwrap();
                let expected = expected.map(|(name, value)| (row(name), row(value)));
                assert_eq!(found, expected, "{start}");
            };
            check("a", Some(("a3", "stored")));
            check("a3", Some(("a3", "stored")));
            check("a4", Some(("a4", "own")));
            check("a41", Some(("a5", "submitted")));
            check("a6", None);
            for (most, expected) in [(0, 0), (1, 1), (2, 2), (9, 3)] {
                let keys = tx.first_keys(Family::View, b"a", most).unwrap();
                let all = [row("a3"), row("a4"), row("a5")];
                assert_eq!(keys, all[..expected], "{most}");
            }
            Ok(())
        });
        checked.unwrap();
    }
}
