//! The interface of a storage engine: ordered maps, one a family, changed by atomic batches.

use crate::{Batch, Error, Family};

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
    fn prefix_ends() {
        assert_eq!(prefix_end(b"a"), b"b");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\x00\x00"), b"\x00\x01");
    }
}
