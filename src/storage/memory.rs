//! The in-memory engine: ordered maps that forget, on a crash, what was not synced.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::{Batch, Engine, Error, Family, Op, Reader, ShardId, log};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
/// Maps are shared with snapshots; a write copies a map only while a snapshot of it lives.
type Maps = Vec<Arc<Map>>;

/// An engine without a disk, for tests and simulations.
pub struct MemoryEngine {
    state: RwLock<State>,
}

struct State {
    maps: Maps,
    /// What was written without sync.
    unsynced: Vec<Unsynced>,
    /// The write that a planned crash interrupted.
    interrupted: Option<Batch>,
    /// How many synced writes still succeed before a planned crash.
    writes_left: Option<u64>,
    dead: bool,
    free_bytes: Option<u64>,
}

/// One unsynced write: how to take it back.
struct Unsynced {
    undo: Batch,
}

/// A frozen state of the memory engine.
struct Snapshot(Maps);

impl Default for MemoryEngine {
    fn default() -> Self {
        MemoryEngine::new()
    }
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> MemoryEngine {
        MemoryEngine::with(Family::ALL.iter().map(|_| Arc::default()).collect())
    }

    fn with(maps: Maps) -> MemoryEngine {
        let state = State {
            maps,
            unsynced: Vec::new(),
            interrupted: None,
            writes_left: None,
            dead: false,
            free_bytes: None,
        };
        MemoryEngine {
            state: RwLock::new(state),
        }
    }

    /// The next synced writes succeed, as many as `writes`; the one after them fails as if the machine
    /// had stopped in the middle of it, and so does everything later.
    pub fn crash_after(&self, writes: u64) {
        self.state.write().writes_left = Some(writes);
    }

    /// What `free_bytes` reports from now on.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.state.write().free_bytes = bytes;
    }

    /// Stops the engine at once; everything that was not synced is lost. Returns the engine that a
    /// restart finds. The old one refuses every call.
    pub fn crash(&self) -> MemoryEngine {
        let mut state = self.state.write();
        state.dead = true;
        let mut maps = std::mem::take(&mut state.maps);
        for write in state.unsynced.drain(..).rev() {
            apply(&mut maps, write.undo.ops());
        }
        state.interrupted = None;
        MemoryEngine::with(maps)
    }

    /// Stops the engine as [`crash`](Self::crash) does, but keeps some of what was not synced: any
    /// number of the unsynced writes from the first on and, if all of them, of the write that a planned
    /// crash interrupted, for each shard apart, any number of its batches from the first on. A disk may
    /// do the one, a log for each shard the other.
    pub fn crash_keeping_some(&self, seed: u64) -> MemoryEngine {
        let mut random = SplitMix(seed);
        let mut state = self.state.write();
        state.dead = true;
        let mut maps = std::mem::take(&mut state.maps);
        let mut unsynced: Vec<Unsynced> = state.unsynced.drain(..).collect();
        let kept = random.below(unsynced.len() as u64 + 1) as usize;
        let all_kept = kept == unsynced.len();
        for write in unsynced.drain(kept..).rev() {
            apply(&mut maps, write.undo.ops());
        }
        if let (Some(batch), true) = (state.interrupted.take(), all_kept) {
            keep_some(&mut maps, &batch, &mut random);
        }
        MemoryEngine::with(maps)
    }
}

/// Applies, for each shard, a prefix of its segments in an interrupted group commit.
fn keep_some(maps: &mut Maps, batch: &Batch, random: &mut SplitMix) {
    let mut left: BTreeMap<ShardId, u64> = BTreeMap::new();
    for segment in &batch.segments {
        *left.entry(segment.shard).or_default() += 1;
    }
    for count in left.values_mut() {
        *count = random.below(*count + 1);
    }
    for segment in &batch.segments {
        match left.get_mut(&segment.shard) {
            Some(count) if *count > 0 => *count -= 1,
            _ => continue,
        }
        apply(maps, batch.ops_in(segment.start, segment.end));
        let mut head = Batch::new();
        log::put_head(segment.shard, segment.position, &mut head);
        apply(maps, head.ops());
    }
}

fn apply<'a>(maps: &mut Maps, ops: impl Iterator<Item = Op<'a>>) {
    for op in ops {
        match op {
            Op::Put(family, key, value) => {
                map_mut(maps, family).insert(key.to_vec(), value.to_vec());
            }
            Op::Delete(family, key) => {
                map_mut(maps, family).remove(key);
            }
            Op::DeleteRange(family, start, end) => {
                if start < end {
                    map_mut(maps, family).retain(|key, _| &**key < start || &**key >= end);
                }
            }
        }
    }
}

/// The changes that take those of a batch back, in the order in which they must be applied.
fn undo(maps: &Maps, batch: &Batch) -> Batch {
    // Every touched key is set to what it is now, so one entry a key is enough and order is free.
    let mut undo = Batch::new();
    let mut restore = |family: Family, key: &[u8]| match maps[family as usize].get(key) {
        Some(value) => undo.put(family, key, value),
        None => undo.delete(family, key),
    };
    for op in batch.ops() {
        match op {
            Op::Put(family, key, _) | Op::Delete(family, key) => restore(family, key),
            Op::DeleteRange(family, start, end) if start < end => {
                let bounds = (Bound::Included(start), Bound::Excluded(end));
                for (key, _) in maps[family as usize].range::<[u8], _>(bounds) {
                    restore(family, key);
                }
            }
            Op::DeleteRange(..) => {}
        }
    }
    undo
}

fn map_mut(maps: &mut Maps, family: Family) -> &mut Map {
    Arc::make_mut(&mut maps[family as usize])
}

fn crashed() -> Error {
    Error::Engine("the memory engine has crashed".to_owned())
}

impl MemoryEngine {
    fn map(&self, family: Family) -> Result<Arc<Map>, Error> {
        let state = self.state.read();
        if state.dead {
            return Err(crashed());
        }
        Ok(Arc::clone(&state.maps[family as usize]))
    }
}

impl Reader for MemoryEngine {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let state = self.state.read();
        if state.dead {
            return Err(crashed());
        }
        Ok(state.maps[family as usize].get(key).cloned())
    }

    fn multi_get(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let state = self.state.read();
        if state.dead {
            return Err(crashed());
        }
        Ok(keys
            .iter()
            .map(|key| state.maps[family as usize].get(key).cloned())
            .collect())
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        // The lock is not held: a visitor may use the engine.
        scan_map(&*self.map(family)?, start, end, reverse, visit);
        Ok(())
    }
}

fn scan_map(map: &Map, start: &[u8], end: &[u8], reverse: bool, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
    if start >= end {
        return;
    }
    let bounds = (Bound::Included(start), Bound::Excluded(end));
    let mut range = map.range::<[u8], _>(bounds);
    loop {
        let next = if reverse { range.next_back() } else { range.next() };
        match next {
            Some((key, value)) if visit(key, value) => {}
            _ => return,
        }
    }
}

impl Engine for MemoryEngine {
    fn write(&self, batch: &Batch, sync: bool) -> Result<(), Error> {
        let mut state = self.state.write();
        let state = &mut *state;
        if state.dead || state.interrupted.is_some() {
            return Err(crashed());
        }
        if !sync {
            let undo = undo(&state.maps, batch);
            state.unsynced.push(Unsynced { undo });
            apply(&mut state.maps, batch.ops());
            return Ok(());
        }
        match &mut state.writes_left {
            Some(0) => {
                state.interrupted = Some(batch.copied());
                return Err(crashed());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        apply(&mut state.maps, batch.ops());
        state.unsynced.clear();
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn Reader + '_> {
        Box::new(Snapshot(self.state.read().maps.clone()))
    }

    fn usage_bytes(&self) -> u64 {
        let maps = self.state.read().maps.clone();
        let rows = maps.iter().flat_map(|map| map.iter());
        rows.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    fn compact(&self, _family: Family, _start: &[u8], _end: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        let mut state = self.state.write();
        if state.dead {
            return Err(crashed());
        }
        state.unsynced.clear();
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        self.state.read().free_bytes
    }
}

impl Snapshot {
    fn map(&self, family: Family) -> Result<&Map, Error> {
        self.0.get(family as usize).map(|map| &**map).ok_or_else(crashed)
    }
}

impl Reader for Snapshot {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.map(family)?.get(key).cloned())
    }

    fn multi_get(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let map = self.map(family)?;
        Ok(keys.iter().map(|key| map.get(key).cloned()).collect())
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        scan_map(self.map(family)?, start, end, reverse, visit);
        Ok(())
    }
}

/// The choices of a crash, repeatable from its seed.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(engine: &MemoryEngine, key: &str, sync: bool) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.put(Family::View, key, key);
        engine.write(&batch, sync)
    }

    fn keys(engine: &MemoryEngine) -> String {
        let mut keys = String::new();
        let visit = &mut |key: &[u8], _: &[u8]| {
            keys.push_str(std::str::from_utf8(key).unwrap());
            true
        };
        engine.scan(Family::View, b"", b"\xff", false, visit).unwrap();
        keys
    }

    #[test]
    fn a_crash_drops_what_was_not_synced() {
        let engine = MemoryEngine::new();
        put(&engine, "a", false).unwrap();
        put(&engine, "b", true).unwrap();
        put(&engine, "c", false).unwrap();
        let mut batch = Batch::new();
        batch.delete(Family::View, "a");
        batch.delete_range(Family::View, "b", "d");
        engine.write(&batch, false).unwrap();
        assert_eq!(keys(&engine), "");
        let after = engine.crash();
        assert_eq!(keys(&after), "ab", "a sync covers everything before it");
        assert!(
            put(&engine, "x", true).is_err() && engine.get(Family::View, b"a").is_err(),
            "the old one is dead"
        );
    }

    #[test]
    fn a_crash_may_keep_a_prefix() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let engine = MemoryEngine::new();
            put(&engine, "a", true).unwrap();
            put(&engine, "b", false).unwrap();
            put(&engine, "c", false).unwrap();
            seen.insert(keys(&engine.crash_keeping_some(seed)));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "ab", "abc"]);
    }

    #[test]
    fn a_planned_crash_fails_the_write_and_all_after_it() {
        let engine = MemoryEngine::new();
        engine.crash_after(1);
        put(&engine, "a", true).unwrap();
        assert!(put(&engine, "b", true).is_err());
        assert!(put(&engine, "c", true).is_err() && put(&engine, "d", false).is_err());
        assert_eq!(keys(&engine.crash()), "a");
    }
}
