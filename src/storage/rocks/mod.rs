//! The RocksDB engine.
//!
//! Our families of one profile share one of RocksDB's column families, in which their keys start with
//! the family's code. Each of RocksDB's own costs a memtable, files, and several synced writes when it is
//! made, flushed or recovered: with one for each of ours a start would take a quarter of a second.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, Options,
    ReadOptions, SnapshotWithThreadMode, WriteBatch, WriteBufferManager, WriteOptions,
};

mod read;

use crate::family::Profile;
use crate::{Batch, Engine, Error, Family, Op, Reader};

/// A write buffer of one group is flushed at this size. Small, because a server is to fit into a small machine.
const WRITE_BUFFER_BYTES: usize = 16 << 20;
/// The grain in which a write buffer takes memory. RocksDB's own grain (an eighth of the buffer) would
/// cost an idle server a megabyte for each group.
const ARENA_BLOCK_BYTES: usize = 64 << 10;
/// The part of a write buffer that is a filter of its keys: about ten bits for each row of 130 bytes.
/// Look-ups of what is not in a buffer (new transaction ids, old state) are spared a walk through it.
const MEMTABLE_FILTER_RATIO: f64 = 0.01;
/// The write-ahead log is cut when it reaches this, which also bounds the replay after a crash.
const WAL_MAX_BYTES: u64 = 64 << 20;
/// File descriptors for table files; further files are opened and closed as needed.
const OPEN_FILES_MAX: i32 = 1024;
/// The level of zstd for event bodies, once they are compacted. The dictionary does most of it: level 6 saves
/// a few bytes more of a message and costs a fifth of the CPU of a server at full load.
const EVENT_ZSTD_LEVEL: i32 = 1;
/// The size of the dictionary that zstd trains for a file of event bodies: they resemble each other.
const EVENT_DICTIONARY_BYTES: i32 = 32 << 10;
/// What it is trained with: a few hundred events. The time of training grows with it, and comes for each file.
const EVENT_TRAINING_BYTES: i32 = EVENT_DICTIONARY_BYTES * 16;
/// So many flushed files of what is looked up by key are gathered before they are merged into the level below: the rows
/// of all rooms lie all over it, so that each merge writes most of it anew.
const FILES_GATHERED: i32 = 8;

/// What RocksDB adds to a row at most: its kind, its column family, two lengths and the code of our family.
const ROW_OVERHEAD_BYTES: usize = 13;

/// Settings of the RocksDB engine.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Memory for cached blocks and write buffers together.
    pub memory_limit_bytes: usize,
}

impl Default for RocksOptions {
    fn default() -> Self {
        RocksOptions {
            memory_limit_bytes: 256 << 20,
        }
    }
}

/// The engine that servers use.
pub struct RocksEngine {
    db: DB,
    path: PathBuf,
    synced: WriteOptions,
    unsynced: WriteOptions,
    tiers: read::Tiers,
    // Dropped after the database, which refers to it.
    _cache: Cache,
}

fn engine_error(error: rocksdb::Error) -> Error {
    let text = error.into_string();
    if text.contains("While lock file") {
        return Error::InUse(text);
    }
    Error::Engine(text)
}

impl RocksEngine {
    /// Opens the store in a folder, which is made if it does not exist.
    pub fn open(path: impl AsRef<Path>, options: RocksOptions) -> Result<RocksEngine, Error> {
        let path = path.as_ref();
        std::fs::create_dir_all(path)
            .map_err(|error| Error::Engine(format!("{} cannot be made: {error}", path.display())))?;
        let db_options = db_options();
        refuse_unknown_groups(&db_options, path)?;
        let cache = Cache::new_lru_cache(options.memory_limit_bytes);
        let mut db_options = db_options;
        let buffers = options.memory_limit_bytes / 4;
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(buffers, false, cache.clone());
        db_options.set_write_buffer_manager(&buffers);
        let mut descriptors = vec![ColumnFamilyDescriptor::new("default", Options::default())];
        for profile in Profile::ALL {
            descriptors.push(ColumnFamilyDescriptor::new(
                group_name(profile),
                group_options(profile, &cache),
            ));
        }
        let db = DB::open_cf_descriptors(&db_options, path, descriptors).map_err(engine_error)?;
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(RocksEngine {
            db,
            path: path.to_owned(),
            synced,
            unsynced: WriteOptions::default(),
            tiers: read::Tiers::default(),
            _cache: cache,
        })
    }

    fn handle(&self, profile: Profile) -> &ColumnFamily {
        self.db
            .cf_handle(group_name(profile))
            .expect("every group was opened")
    }

    fn to_write_batch(&self, batch: &Batch) -> WriteBatch {
        let handles = Profile::ALL.map(|profile| self.handle(profile));
        let mut out = WriteBatch::with_capacity_bytes(batch.bytes() + batch.len() * ROW_OVERHEAD_BYTES);
        let (mut first, mut second) = (Vec::with_capacity(128), Vec::with_capacity(128));
        for op in order_of_writing(batch) {
            let family = op.family();
            let handle = handles[family.doc().profile as usize];
            match op {
                Op::Put(_, key, value) => out.put_cf(handle, full_key(&mut first, family, key), value),
                Op::Delete(_, key) => out.delete_cf(handle, full_key(&mut first, family, key)),
                // RocksDB refuses a range that ends before it starts.
                Op::DeleteRange(_, start, end) if start < end => {
                    let start = full_key(&mut first, family, start);
                    out.delete_range_cf(handle, start, full_key(&mut second, family, end));
                }
                Op::DeleteRange(..) => {}
            }
        }
        out
    }
}

/// The changes of a batch in the order in which RocksDB gets them: by their keys, because it finds the place of a row
/// soonest from the row before it. Of several changes of one row the last counts: a group commit of a busy room has the
/// room's head once for each event, and only the last of them will ever be read. Where a range is deleted, all keep
/// their order.
fn order_of_writing(batch: &Batch) -> Vec<Op<'_>> {
    if batch.ops().any(|op| matches!(op, Op::DeleteRange(..))) {
        return batch.ops().collect();
    }
    let key = |at: usize| batch.op_at(at).key();
    let mut ranked: Vec<(u128, usize)> = batch.ops().map(rank_of).zip(0..).collect();
    // The whole keys are compared only where their beginnings are equal, and of one row the changes keep their order.
    ranked.sort_unstable_by(|(one, at), (other, than)| {
        one.cmp(other)
            .then_with(|| key(*at).cmp(key(*than)))
            .then_with(|| at.cmp(than))
    });
    let is_last_of_its_row = |of: usize| {
        let (rank, at) = ranked[of];
        ranked
            .get(of + 1)
            .is_none_or(|(next, after)| *next != rank || key(*after) != key(at))
    };
    (0..ranked.len())
        .filter(|of| is_last_of_its_row(*of))
        .map(|of| batch.op_at(ranked[of].1))
        .collect()
}

/// The group, the family and the beginning of the key of a change, as one number that orders as they do.
fn rank_of(op: Op<'_>) -> u128 {
    let (family, key) = (op.family(), op.key());
    let mut bytes = [0; 16];
    bytes[0] = family.doc().profile as u8;
    bytes[1] = family.code();
    let begun = key.len().min(14);
    bytes[2..2 + begun].copy_from_slice(&key[..begun]);
    u128::from_be_bytes(bytes)
}

/// The name of the column family of RocksDB in which families of this profile are stored.
fn group_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Point => "point",
        Profile::Scan => "scan",
        Profile::Queue => "queue",
        Profile::Events => "events",
    }
}

/// A family's key as it is stored: its code first.
fn full_key<'a>(buffer: &'a mut Vec<u8>, family: Family, key: &[u8]) -> &'a [u8] {
    buffer.clear();
    buffer.push(family.code());
    buffer.extend_from_slice(key);
    buffer
}

fn db_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // One job flushes while one compacts; more would take both cores of a small machine.
    options.set_max_background_jobs(2);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_file_opening_threads(1);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_max_total_wal_size(WAL_MAX_BYTES);
    options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_table_cache_num_shard_bits(2);
    // The log has one writer at a time: nothing is gained by several threads in one write.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_bytes_per_sync(1 << 20);
    options
}

fn group_options(profile: Profile, cache: &Cache) -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_max_write_buffer_number(3);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base(32 << 20);
    options.set_max_bytes_for_level_base(64 << 20);
    // Fresh data is compressed cheaply; the last level, where nearly all of it ends, well.
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    if profile != Profile::Queue {
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_RATIO);
    }
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(5);
    match profile {
        Profile::Point => {
            table.set_bloom_filter(10.0, false);
            table.set_block_size(8 << 10);
            options.set_level_zero_file_num_compaction_trigger(FILES_GATHERED);
        }
        // Scanned, but single rows are also looked up on the way of most requests, such as a member's.
        Profile::Scan => {
            table.set_bloom_filter(10.0, false);
            table.set_block_size(16 << 10);
        }
        Profile::Queue => table.set_block_size(32 << 10),
        Profile::Events => {
            table.set_bloom_filter(10.0, false);
            table.set_block_size(32 << 10);
            options.set_bottommost_compression_options(
                -14,
                EVENT_ZSTD_LEVEL,
                0,
                EVENT_DICTIONARY_BYTES,
                true,
            );
            options.set_bottommost_zstd_max_train_bytes(EVENT_TRAINING_BYTES, true);
            options.set_level_zero_file_num_compaction_trigger(FILES_GATHERED);
        }
    }
    options.set_block_based_table_factory(&table);
    options
}

/// A store with column families that we do not know was written by a newer version.
fn refuse_unknown_groups(options: &Options, path: &Path) -> Result<(), Error> {
    if !path.join("CURRENT").exists() {
        return Ok(());
    }
    let known: BTreeSet<&str> = Profile::ALL
        .into_iter()
        .map(group_name)
        .chain(["default"])
        .collect();
    let found = DB::list_cf(options, path).map_err(engine_error)?;
    match found.iter().find(|name| !known.contains(name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::Schema(format!(
            "the data directory holds {name}, which this version of Hearth does not know; start the version that wrote it"
        ))),
    }
}

fn full_keys(family: Family, keys: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let full = |key: &Vec<u8>| {
        let mut buffer = Vec::with_capacity(1 + key.len());
        full_key(&mut buffer, family, key);
        buffer
    };
    keys.iter().map(full).collect()
}

type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

impl Reader for RocksEngine {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut buffer = Vec::with_capacity(64);
        let (handle, key) = (
            self.handle(family.doc().profile),
            full_key(&mut buffer, family, key),
        );
        let found = read::one(|cached| self.db.get_pinned_cf_opt(handle, key, self.tiers.of(cached)))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn multi_get(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let handle = self.handle(family.doc().profile);
        read::many(&full_keys(family, keys), |keys, cached| {
            let options = self.tiers.of(cached);
            let found = self
                .db
                .batched_multi_get_cf_opt(handle, keys.iter().copied(), false, options);
            found.into_iter().map(read::copied).collect()
        })
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), Error> {
        let handle = self.handle(family.doc().profile);
        let open = |options| self.db.raw_iterator_cf_opt(handle, options);
        read::Range::new(family, start, end, reverse).visit(open, visit)
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: &Batch, sync: bool) -> Result<(), Error> {
        let options = if sync { &self.synced } else { &self.unsynced };
        self.db
            .write_opt(self.to_write_batch(batch), options)
            .map_err(engine_error)
    }

    fn snapshot(&self) -> Box<dyn Reader + '_> {
        Box::new(Snapshot {
            engine: self,
            snapshot: self.db.snapshot(),
        })
    }

    fn usage_bytes(&self) -> u64 {
        let size = |profile| {
            let property = self
                .db
                .property_int_value_cf(self.handle(profile), "rocksdb.live-sst-files-size");
            property.ok().flatten().unwrap_or(0)
        };
        Profile::ALL.into_iter().map(size).sum()
    }

    fn compact(&self, family: Family, start: &[u8], end: &[u8]) -> Result<(), Error> {
        let mut options = rocksdb::CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let (start, end) = (
            full_key(&mut first, family, start),
            full_key(&mut second, family, end),
        );
        self.db.compact_range_cf_opt(
            self.handle(family.doc().profile),
            Some(start),
            Some(end),
            &options,
        );
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        let mut options = rocksdb::FlushOptions::default();
        options.set_wait(true);
        self.db
            .flush_cfs_opt(&Profile::ALL.map(|profile| self.handle(profile)), &options)
            .map_err(engine_error)
    }

    fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.path).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Options for a read of a snapshot, which sets itself in them.
fn options_of(cached: bool) -> ReadOptions {
    match cached {
        true => read::cached(ReadOptions::default()),
        false => ReadOptions::default(),
    }
}

/// A frozen state of the store.
struct Snapshot<'a> {
    engine: &'a RocksEngine,
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

impl Reader for Snapshot<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut buffer = Vec::with_capacity(64);
        let (handle, key) = (
            self.engine.handle(family.doc().profile),
            full_key(&mut buffer, family, key),
        );
        read::one(|cached| self.snapshot.get_cf_opt(handle, key, options_of(cached)))
    }

    fn multi_get(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let handle = self.engine.handle(family.doc().profile);
        read::many(&full_keys(family, keys), |keys, cached| {
            let keys = keys.iter().map(|key| (handle, key));
            self.snapshot.multi_get_cf_opt(keys, options_of(cached))
        })
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), Error> {
        let handle = self.engine.handle(family.doc().profile);
        let open = |options| self.snapshot.raw_iterator_cf_opt(handle, options);
        read::Range::new(family, start, end, reverse).visit(open, visit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the keys: the last change of each row, by the bytes of the keys.
        #[test]
        fn rows_are_written_once_and_in_order(
            rows in proptest::collection::vec((0usize..4, proptest::collection::vec(0u8..3, 0..20), 0u8..4), 0..200),
        ) {
            let families = [Family::RoomEvent, Family::RoomTxn, Family::Room, Family::Feed];
            let (mut batch, mut wanted) = (Batch::new(), BTreeMap::new());
            for (family, key, value) in &rows {
                let family = families[*family];
                let op = match value {
                    0 => Op::Delete(family, key),
                    value => Op::Put(family, key, std::slice::from_ref(value)),
                };
                batch.push(op);
                wanted.insert((family.doc().profile as u8, family.code(), key), op);
            }
            let wanted: Vec<Op<'_>> = wanted.into_values().collect();
            prop_assert_eq!(order_of_writing(&batch), wanted);
        }
    }
}
