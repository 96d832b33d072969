//! The feed: what happened in each shard, in order, for consumers with durable cursors.
//!
//! A consumer, called a duty, reads behind its cursor, does its work, and moves the cursor. It may be
//! stopped anywhere: it does its last items again, with no visible effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::log::{FeedItem, Inner, Log, decode_feed};
use crate::record::take;
use crate::schema::cursor::CursorKey;
use crate::schema::feed::FeedKey;
use crate::{Batch, Engine, Error, Family, Position, ShardId};

/// How many positions of a feed are kept where no duty reads it: enough that a duty which is added in a
/// running server finds the recent past.
pub const UNREAD_FEED_POSITIONS: Position = 65_536;

/// The tag of a cursor.
const TAG: u8 = 2;

/// Where a new duty starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest item that is still there.
    Oldest,
    /// With what happens from now on.
    Now,
}

/// Reads the feeds of a log.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

impl Feed {
    /// The feeds of this log.
    pub fn new(log: &Log) -> Feed {
        Feed(Arc::clone(log.inner()))
    }

    /// Makes a duty known: from now on nothing is trimmed that it has not read. A duty that is known
    /// already keeps its cursors.
    pub fn register(&self, duty: &str, start: Start) -> Result<(), Error> {
        let mut batch = Batch::new();
        for shard in self.0.shard_ids() {
            if self.0.cursors.get(duty, shard).is_none() {
                let position = if start == Start::Now {
                    self.0.published(shard)
                } else {
                    0
                };
                self.0.cursors.set(duty, shard, position, &mut batch);
            }
        }
        if batch.is_empty() {
            Ok(())
        } else {
            self.0.engine().write(&batch, true)
        }
    }

    /// Whether a duty is known: nothing that it has not read was trimmed since.
    pub fn is_registered(&self, duty: &str) -> bool {
        let mut shards = self.0.shard_ids();
        shards.all(|shard| self.0.cursors.get(duty, shard).is_some())
    }

    /// Forgets a duty, so that it holds back no feed.
    pub fn unregister(&self, duty: &str) -> Result<(), Error> {
        let mut batch = Batch::new();
        self.0.cursors.remove(duty, &mut batch);
        self.0.engine().write(&batch, true)
    }

    /// The items of at most `limit` batches behind position `after`, up to what is published. A batch that cannot be read is
    /// given without items: what it says of one room or one user must not keep a duty from all others.
    pub fn read(
        &self,
        shard: ShardId,
        after: Position,
        limit: usize,
    ) -> Result<Vec<(Position, Vec<FeedItem>)>, Error> {
        let published = self.0.published(shard);
        if let Some(found) = self.0.tail(shard).read(after, published, limit) {
            return Ok(found);
        }
        let start = FeedKey {
            shard,
            position: after.saturating_add(1),
        }
        .encode();
        let end = FeedKey {
            shard,
            position: published.saturating_add(1),
        }
        .encode();
        let mut batches = Vec::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            if batches.len() >= limit {
                return false;
            }
            let Some(FeedKey { position, .. }) = FeedKey::decode(key) else {
                return true;
            };
            let items = decode_feed(value).unwrap_or_else(|| {
                tracing::error!(
                    shard = shard.0,
                    position,
                    "a row of a feed is not readable and is passed over"
                );
                Vec::new()
            });
            batches.push((position, items));
            true
        };
        self.0.engine().scan(Family::Feed, &start, &end, false, visit)?;
        Ok(batches)
    }

    /// Up to which position a duty has done its work.
    pub fn cursor(&self, duty: &str, shard: ShardId) -> Position {
        self.0.cursors.get(duty, shard).unwrap_or(0)
    }

    /// Says that a duty's work up to a position is done and durable. The cursor itself is written with one of
    /// the next commits; after a crash before it, the duty does that work again.
    pub fn set_cursor(&self, duty: &str, shard: ShardId, position: Position) {
        self.0.cursors.move_to(duty, shard, position);
    }

    /// As [`set_cursor`](Self::set_cursor), but into the duty's own batch, so that its work and its cursor
    /// are written together.
    pub fn set_cursor_in(&self, duty: &str, shard: ShardId, position: Position, batch: &mut Batch) {
        self.0.cursors.set(duty, shard, position, batch);
    }

    /// Removes what every duty has read, or all but the last [`UNREAD_FEED_POSITIONS`] where there is no
    /// duty. The log does this by itself as it grows.
    pub fn trim(&self, shard: ShardId) -> Result<(), Error> {
        if !self.0.shard_ids().any(|open| open == shard) {
            return Ok(());
        }
        let Some(read) = trimmable(self.0.engine(), shard, self.0.published(shard))? else {
            return Ok(());
        };
        let mut batch = Batch::new();
        trim_in(shard, read, &mut batch);
        self.0.engine().write(&batch, false)?;
        self.0.tail(shard).forget(read);
        Ok(())
    }
}

/// The cursors of all duties, as they are known to this process.
#[derive(Default)]
pub(crate) struct Cursors(Mutex<State>);

#[derive(Default)]
struct State {
    duties: BTreeMap<String, Known>,
    /// Shards that are not open here: their cursors are another log's to move.
    dropped: BTreeSet<ShardId>,
}

/// The cursors of one duty.
#[derive(Default)]
struct Known {
    positions: BTreeMap<ShardId, Position>,
    /// The shards whose cursor has moved since it was written.
    unwritten: BTreeSet<ShardId>,
}

/// Duty, shard, position.
type Duties = BTreeMap<String, BTreeMap<ShardId, Position>>;

impl Cursors {
    pub(crate) fn load(engine: &dyn Engine) -> Result<Cursors, Error> {
        let known = |(duty, positions)| {
            let unwritten = BTreeSet::new();
            (duty, Known { positions, unwritten })
        };
        let duties = load_cursors(engine)?.into_iter().map(known).collect();
        let dropped = BTreeSet::new();
        Ok(Cursors(Mutex::new(State { duties, dropped })))
    }

    fn get(&self, duty: &str, shard: ShardId) -> Option<Position> {
        self.0.lock().duties.get(duty)?.positions.get(&shard).copied()
    }

    /// Moves a cursor; the change is written later.
    fn move_to(&self, duty: &str, shard: ShardId, position: Position) {
        let mut state = self.0.lock();
        if state.dropped.contains(&shard) {
            return;
        }
        if !state.duties.contains_key(duty) {
            state.duties.insert(duty.to_owned(), Known::default());
        }
        if let Some(known) = state.duties.get_mut(duty) {
            known.positions.insert(shard, position);
            known.unwritten.insert(shard);
        }
    }

    /// Moves a cursor, and writes the change into a batch.
    fn set(&self, duty: &str, shard: ShardId, position: Position, batch: &mut Batch) {
        let mut state = self.0.lock();
        if state.dropped.contains(&shard) {
            return;
        }
        let known = state.duties.entry(duty.to_owned()).or_default();
        known.positions.insert(shard, position);
        known.unwritten.remove(&shard);
        put_cursor(duty, shard, position, batch);
    }

    /// Writes the cursors that moved into a batch.
    pub(crate) fn take_unwritten(&self, batch: &mut Batch) {
        for (duty, known) in self.0.lock().duties.iter_mut() {
            for shard in std::mem::take(&mut known.unwritten) {
                if let Some(position) = known.positions.get(&shard) {
                    put_cursor(duty, shard, *position, batch);
                }
            }
        }
    }

    fn remove(&self, duty: &str, batch: &mut Batch) {
        let known = self.0.lock().duties.remove(duty).unwrap_or_default();
        for shard in known.positions.into_keys() {
            batch.delete(
                Family::Cursor,
                CursorKey {
                    duty: duty.into(),
                    shard,
                }
                .encode(),
            );
        }
    }

    /// Forgets the cursors of a shard that is being dropped; those that moved are written into a batch.
    pub(crate) fn let_go(&self, shard: ShardId, batch: &mut Batch) {
        let mut state = self.0.lock();
        state.dropped.insert(shard);
        for (duty, known) in &mut state.duties {
            let position = known.positions.remove(&shard);
            if let (true, Some(position)) = (known.unwritten.remove(&shard), position) {
                put_cursor(duty, shard, position, batch);
            }
        }
    }

    /// Reads the cursors of a shard that is being opened.
    pub(crate) fn take_up(&self, engine: &dyn Engine, shard: ShardId) -> Result<(), Error> {
        let stored = load_cursors(engine)?;
        let mut state = self.0.lock();
        for (duty, positions) in stored {
            if let Some(position) = positions.get(&shard) {
                let known = state.duties.entry(duty).or_default();
                known.positions.insert(shard, *position);
            }
        }
        state.dropped.remove(&shard);
        Ok(())
    }
}

fn put_cursor(duty: &str, shard: ShardId, position: Position, batch: &mut Batch) {
    let mut value = Vec::with_capacity(9);
    value.push(TAG);
    value.extend_from_slice(&position.to_be_bytes());
    let duty = duty.into();
    batch.put(Family::Cursor, CursorKey { duty, shard }.encode(), value);
}

/// Up to where no duty of a shard needs the feed; none where all of it is needed. It goes by the cursors on disk: those
/// in memory may be ahead of work that a crash would lose.
pub(crate) fn trimmable(
    engine: &dyn Engine,
    shard: ShardId,
    published: Position,
) -> Result<Option<Position>, Error> {
    let duties = load_cursors(engine)?;
    let slowest = duties
        .values()
        .filter_map(|cursors| cursors.get(&shard).copied())
        .min();
    let read = slowest
        .unwrap_or(published.saturating_sub(UNREAD_FEED_POSITIONS))
        .min(published);
    Ok((read > 0).then_some(read))
}

/// Removes a shard's feed up to a position.
pub(crate) fn trim_in(shard: ShardId, read: Position, batch: &mut Batch) {
    let start = FeedKey { shard, position: 0 }.encode();
    let end = FeedKey {
        shard,
        position: read + 1,
    }
    .encode();
    batch.delete_range(Family::Feed, start, end);
}

fn load_cursors(engine: &dyn Engine) -> Result<Duties, Error> {
    let mut duties = Duties::new();
    let mut corrupt = false;
    engine.scan(Family::Cursor, &[], &[0xFF], false, &mut |key, value| {
        match (CursorKey::decode(key), decode_cursor(value)) {
            (Some(key), Some(position)) => {
                duties
                    .entry(key.duty.0.into_owned())
                    .or_default()
                    .insert(key.shard, position);
            }
            _ => corrupt = true,
        }
        !corrupt
    })?;
    if corrupt {
        Err(Error::Corrupt("cursor"))
    } else {
        Ok(duties)
    }
}

fn decode_cursor(value: &[u8]) -> Option<Position> {
    let (&TAG, mut rest) = value.split_first()? else {
        return None;
    };
    let position = take(&mut rest).map(Position::from_be_bytes)?;
    rest.is_empty().then_some(position)
}
