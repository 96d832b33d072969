//! The interface of a storage engine: ordered maps, one a family, changed by atomic batches.

use std::sync::Arc;

use crate::entity::Reservation;
use crate::{Error, Family, Position, ShardId};

/// Reads stored data: an engine's newest state, or a snapshot of it.
pub trait Reader: Send + Sync {
    /// The value of one key.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// The values of many keys of one family, in the order of `keys`.
    fn multi_get(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Error>;

    /// Visits the keys of `[start, end)` in order, or backwards; returning `false` stops the scan.
    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error>;
}

/// A storage engine. Writes are atomic over all families; a write with `sync` is on disk, together
/// with every write before it, when the call returns.
pub trait Engine: Reader {
    /// Applies a batch atomically.
    fn write(&self, batch: &Batch, sync: bool) -> Result<(), Error>;

    /// A view that later writes do not change. Keep it no longer than a request.
    fn snapshot(&self) -> Box<dyn Reader + '_>;

    /// Roughly how many bytes the data takes on disk, without the write-ahead log.
    fn usage_bytes(&self) -> u64;

    /// Rewrites a family's range so that deleted data leaves the disk.
    fn compact(&self, family: Family, start: &[u8], end: &[u8]) -> Result<(), Error>;

    /// Writes what is only in memory and the write-ahead log into its final files. Makes the next
    /// start faster; durability does not need it.
    fn flush(&self) -> Result<(), Error>;

    /// Free bytes on the disk that holds the data, where the engine has one.
    fn free_bytes(&self) -> Option<u64>;
}

/// One change of one key, or of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(Family, Vec<u8>, Vec<u8>),
    /// Removes a key, which need not exist.
    Delete(Family, Vec<u8>),
    /// Removes all keys of `[start, end)`.
    DeleteRange(Family, Vec<u8>, Vec<u8>),
}

/// A list of changes that are applied together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    /// The changes, in the order in which they apply.
    pub ops: Vec<Op>,
    pub(crate) reservations: Vec<Arc<Reservation>>,
    pub(crate) segments: Vec<Segment>,
}

/// Which part of a group commit belongs to which position, so that the memory engine can crash in
/// ways that only several logs could.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) shard: ShardId,
    pub(crate) position: Position,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Sets a key.
    pub fn put(&mut self, family: Family, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.push(Op::Put(family, key.into(), value.into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, family: Family, key: impl Into<Vec<u8>>) {
        self.ops.push(Op::Delete(family, key.into()));
    }

    /// Removes the keys of `[start, end)`.
    pub fn delete_range(&mut self, family: Family, start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) {
        self.ops.push(Op::DeleteRange(family, start.into(), end.into()));
    }

    /// Appends the changes of another batch.
    pub fn append(&mut self, mut other: Batch) {
        self.ops.append(&mut other.ops);
        self.reservations.append(&mut other.reservations);
    }

    /// The changes in several batches of about so many bytes, for changes that need not be made together. Names that
    /// are reserved stay with the first.
    pub fn into_parts(self, bytes: usize) -> Vec<Batch> {
        let mut parts = vec![Batch {
            reservations: self.reservations,
            ..Batch::default()
        }];
        let mut filled = 0;
        for op in self.ops {
            if filled >= bytes {
                parts.push(Batch::new());
                filled = 0;
            }
            filled += op.bytes();
            if let Some(last) = parts.last_mut() {
                last.ops.push(op);
            }
        }
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// How many bytes the keys and values take.
    pub fn bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }
}

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Op::Put(_, key, value) => key.len() + value.len(),
            Op::Delete(_, key) => key.len(),
            Op::DeleteRange(_, start, end) => start.len() + end.len(),
        }
    }
}

/// The exclusive end of the keys that start with `prefix`.
///
/// # Panics
/// If the prefix is empty or all `0xFF`, which no key of ours starts with.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF);
    let last = last.expect("a key prefix has a byte below 0xFF");
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_divided_in_order() {
        let mut batch = Batch::new();
        for number in 0..10_u8 {
            batch.put(Family::View, [number], [0; 9]);
        }
        let all = batch.ops.clone();
        let parts = batch.into_parts(25);
        let sizes: Vec<usize> = parts.iter().map(Batch::len).collect();
        assert_eq!(sizes, [3, 3, 3, 1]);
        let again: Vec<Op> = parts.into_iter().flat_map(|part| part.ops).collect();
        assert_eq!(again, all);
        assert!(Batch::new().into_parts(1).is_empty());
    }

    #[test]
    fn prefix_ends() {
        assert_eq!(prefix_end(b"a"), b"b");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\x00\x00"), b"\x00\x01");
    }
}
