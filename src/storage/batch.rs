//! Batches: changes that are applied together or not at all.

use std::sync::Arc;

use crate::entity::Reservation;
use crate::{Family, Position, ShardId};

/// What a batch takes room for when it gets its first row: an event of a client with all its rows fits.
const FIRST_BYTES: usize = 2 << 10;
const FIRST_ROWS: usize = 12;
/// The most memory that a batch keeps that is used again.
const KEPT_BYTES: usize = 4 << 20;

/// One change of one key, or of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Sets a key.
    Put(Family, &'a [u8], &'a [u8]),
    /// Removes a key, which need not exist.
    Delete(Family, &'a [u8]),
    /// Removes all keys of `[start, end)`.
    DeleteRange(Family, &'a [u8], &'a [u8]),
}

/// A list of changes that are applied together or not at all, in their order.
///
/// Keys and values lie in one piece of memory: what one thread puts together another one writes and frees, which for
/// each of them by itself would cost more than to copy it.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    pub(crate) reservations: Vec<Arc<Reservation>>,
    pub(crate) segments: Vec<Segment>,
}

/// Where the parts of a change lie.
#[derive(Clone, Copy, Debug)]
struct Row {
    kind: Kind,
    family: Family,
    first_bytes: u32,
    second_bytes: u32,
    start: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Put,
    Delete,
    DeleteRange,
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
    pub fn put(&mut self, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.push(Op::Put(family, key.as_ref(), value.as_ref()));
    }

    /// Removes a key.
    pub fn delete(&mut self, family: Family, key: impl AsRef<[u8]>) {
        self.push(Op::Delete(family, key.as_ref()));
    }

    /// Removes the keys of `[start, end)`.
    pub fn delete_range(&mut self, family: Family, start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) {
        self.push(Op::DeleteRange(family, start.as_ref(), end.as_ref()));
    }

    /// Adds a change.
    ///
    /// # Panics
    /// If a key or a value has 4 GiB or more.
    pub fn push(&mut self, op: Op<'_>) {
        let (kind, family, first, second) = match op {
            Op::Put(family, key, value) => (Kind::Put, family, key, value),
            Op::Delete(family, key) => (Kind::Delete, family, key, &[][..]),
            Op::DeleteRange(family, start, end) => (Kind::DeleteRange, family, start, end),
        };
        if self.rows.capacity() == 0 {
            self.bytes.reserve(FIRST_BYTES);
            self.rows.reserve(FIRST_ROWS);
        }
        let length = |part: &[u8]| u32::try_from(part.len()).expect("a row is smaller than 4 GiB");
        self.rows.push(Row {
            kind,
            family,
            first_bytes: length(first),
            second_bytes: length(second),
            start: self.bytes.len(),
        });
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(second);
    }

    /// Appends the changes of another batch.
    pub fn append(&mut self, mut other: Batch) {
        self.reservations.append(&mut other.reservations);
        if self.rows.is_empty() && self.bytes.capacity() < other.bytes.capacity() {
            (self.bytes, self.rows) = (other.bytes, other.rows);
            return;
        }
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.rows.extend(other.rows.into_iter().map(|row| Row {
            start: before + row.start,
            ..row
        }));
    }

    /// The same changes once more, without the names that are reserved for them.
    pub(crate) fn copied(&self) -> Batch {
        Batch {
            bytes: self.bytes.clone(),
            rows: self.rows.clone(),
            reservations: Vec::new(),
            segments: self.segments.clone(),
        }
    }

    /// Takes out everything, and keeps the memory for what comes next, unless it is much.
    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.rows.clear();
        self.reservations.clear();
        self.segments.clear();
    }

    /// The changes, in the order in which they apply.
    pub fn ops(&self) -> impl DoubleEndedIterator<Item = Op<'_>> + ExactSizeIterator {
        self.ops_in(0, self.rows.len())
    }

    /// The changes from one on until before another.
    pub(crate) fn ops_in(
        &self,
        start: usize,
        end: usize,
    ) -> impl DoubleEndedIterator<Item = Op<'_>> + ExactSizeIterator {
        self.rows[start..end].iter().map(|row| self.op(*row))
    }

    /// One change by its number.
    pub(crate) fn op_at(&self, at: usize) -> Op<'_> {
        self.op(self.rows[at])
    }

    fn op(&self, row: Row) -> Op<'_> {
        let middle = row.start + row.first_bytes as usize;
        let first = &self.bytes[row.start..middle];
        let second = &self.bytes[middle..middle + row.second_bytes as usize];
        match row.kind {
            Kind::Put => Op::Put(row.family, first, second),
            Kind::Delete => Op::Delete(row.family, first),
            Kind::DeleteRange => Op::DeleteRange(row.family, first, second),
        }
    }

    /// The changes in several batches of about so many bytes, for changes that need not be made together. Names that
    /// are reserved stay with the first.
    pub fn into_parts(mut self, bytes: usize) -> Vec<Batch> {
        let mut parts = vec![Batch {
            reservations: std::mem::take(&mut self.reservations),
            ..Batch::default()
        }];
        let mut filled = 0;
        for op in self.ops() {
            if filled >= bytes {
                parts.push(Batch::new());
                filled = 0;
            }
            filled += op.bytes();
            if let Some(last) = parts.last_mut() {
                last.push(op);
            }
        }
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many bytes the keys and values take.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> Op<'a> {
    /// The family that is changed.
    pub fn family(&self) -> Family {
        let (Op::Put(family, ..) | Op::Delete(family, ..) | Op::DeleteRange(family, ..)) = self;
        *family
    }

    /// The key, or the first of the range.
    pub fn key(&self) -> &'a [u8] {
        let (Op::Put(_, key, _) | Op::Delete(_, key) | Op::DeleteRange(_, key, _)) = self;
        key
    }

    fn bytes(&self) -> usize {
        let second = match self {
            Op::Put(_, _, second) | Op::DeleteRange(_, _, second) => second.len(),
            Op::Delete(..) => 0,
        };
        self.key().len() + second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let mut first = Batch::new();
        first.put(Family::View, b"a", b"1");
        first.delete(Family::Room, b"b");
        let mut second = Batch::new();
        second.delete_range(Family::Feed, b"c", b"dd");
        second.put(Family::View, [], vec![]);
        first.append(second);
        let expected = [
            Op::Put(Family::View, b"a", b"1"),
            Op::Delete(Family::Room, b"b"),
            Op::DeleteRange(Family::Feed, b"c", b"dd"),
            Op::Put(Family::View, b"", b""),
        ];
        assert_eq!(first.ops().collect::<Vec<_>>(), expected);
        assert_eq!(first.ops_in(1, 3).collect::<Vec<_>>(), expected[1..3]);
        assert_eq!(first.len(), 4);
        assert_eq!(first.bytes(), 6);
        let mut into_empty = Batch::new();
        into_empty.append(first);
        assert_eq!(into_empty.ops().collect::<Vec<_>>(), expected);
        into_empty.clear();
        assert!(into_empty.is_empty());
    }

    #[test]
    fn a_batch_is_divided_in_order() {
        let mut batch = Batch::new();
        for number in 0..10_u8 {
            batch.put(Family::View, [number], [0; 9]);
        }
        let all = batch.copied();
        let parts = batch.into_parts(25);
        let sizes: Vec<usize> = parts.iter().map(Batch::len).collect();
        assert_eq!(sizes, [3, 3, 3, 1]);
        let again: Vec<Op<'_>> = parts.iter().flat_map(Batch::ops).collect();
        assert_eq!(again, all.ops().collect::<Vec<_>>());
        assert!(Batch::new().into_parts(1).is_empty());
    }
}
