//! Reads that do not hold up requests.
//!
//! What is in memory is read in place, which is the quickest. Where blocks are missing, a worker thread of the runtime must
//! not stand still for the disk: other tasks would wait though their data is there. So it first gives them to another thread
//! (`block_in_place`, of which the runtime has a bounded number), and then reads.

use rocksdb::{DBPinnableSlice, DBRawIterator, ErrorKind, ReadOptions, ReadTier};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{Visit, engine_error, full_key};
use crate::{Error, Family};

/// What RocksDB answers to a read.
type Answer<T> = Result<T, rocksdb::Error>;

/// Whether this thread may be running tasks of a runtime that can give them to another thread.
fn runs_tasks() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

fn is_on_disk<T>(answer: &Answer<T>) -> bool {
    matches!(answer, Err(error) if error.kind() == ErrorKind::Incomplete)
}

/// Reads what is in memory alone.
pub(super) fn cached(mut options: ReadOptions) -> ReadOptions {
    options.set_read_tier(ReadTier::BlockCache);
    options
}

/// Reads one value: `read` is told whether to read what is in memory alone.
pub(super) fn one<T>(read: impl Fn(bool) -> Answer<T>) -> Result<T, Error> {
    if !runs_tasks() {
        return read(false).map_err(engine_error);
    }
    let mut answer = read(true);
    if is_on_disk(&answer) {
        answer = tokio::task::block_in_place(|| read(false));
    }
    answer.map_err(engine_error)
}

/// Whether what is in memory does not say what a row has. Where RocksDB passes a block of a file that lacks the row and the
/// next block of the file is not in memory, its read of many keys says of the row that it is there, with an empty value and
/// without an error, and looks into no other file.
fn is_open(answer: &Answer<Option<Vec<u8>>>) -> bool {
    is_on_disk(answer) || matches!(answer, Ok(Some(value)) if value.is_empty())
}

/// Reads many values: `read` is given keys, and told whether to read what is in memory alone.
pub(super) fn many(
    keys: &[Vec<u8>],
    read: impl Fn(&[&[u8]], bool) -> Vec<Answer<Option<Vec<u8>>>>,
) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let all: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    if !runs_tasks() {
        return read(&all, false)
            .into_iter()
            .map(|answer| answer.map_err(engine_error))
            .collect();
    }
    let mut answers = read(&all, true);
    let on_disk: Vec<usize> = (0..answers.len()).filter(|at| is_open(&answers[*at])).collect();
    if !on_disk.is_empty() {
        let missing: Vec<&[u8]> = on_disk.iter().map(|at| all[*at]).collect();
        let found = tokio::task::block_in_place(|| read(&missing, false));
        for (at, answer) in on_disk.into_iter().zip(found) {
            answers[at] = answer;
        }
    }
    answers
        .into_iter()
        .map(|answer| answer.map_err(engine_error))
        .collect()
}

/// A range of a family.
pub(super) struct Range<'a> {
    family: Family,
    start: &'a [u8],
    end: &'a [u8],
    reverse: bool,
}

impl<'a> Range<'a> {
    pub(super) fn new(family: Family, start: &'a [u8], end: &'a [u8], reverse: bool) -> Self {
        Self {
            family,
            start,
            end,
            reverse,
        }
    }

    fn bounds(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        let mut key = Vec::with_capacity(1 + self.start.len().max(self.end.len()));
        options.set_iterate_lower_bound(full_key(&mut key, self.family, self.start));
        options.set_iterate_upper_bound(full_key(&mut key, self.family, self.end));
        options
    }

    /// Visits the rows of the range; `open` makes an iterator.
    pub(super) fn visit<'i>(
        &self,
        open: impl Fn(ReadOptions) -> DBRawIterator<'i>,
        visit: Visit<'_>,
    ) -> Result<(), Error> {
        // RocksDB takes bounds in the wrong order for a mistake.
        if self.start >= self.end {
            return Ok(());
        }
        if !runs_tasks() {
            return self.walk(open(self.bounds()), None, visit).map_err(engine_error);
        }
        let mut last = Vec::new();
        let walked = self.walk(open(cached(self.bounds())), Some(&mut last), visit);
        if !is_on_disk(&walked) {
            return walked.map_err(engine_error);
        }
        // The rest, from behind the last row that was visited.
        let rest = match (last.is_empty(), self.reverse) {
            (true, _) => Range { ..*self },
            (false, true) => Range {
                end: &last[1..],
                ..*self
            },
            (false, false) => {
                last.push(0);
                Range {
                    start: &last[1..],
                    ..*self
                }
            }
        };
        tokio::task::block_in_place(|| rest.walk(open(rest.bounds()), None, visit)).map_err(engine_error)
    }

    /// Visits what an iterator gives; notes the last full key in `last`.
    fn walk(
        &self,
        mut iterator: DBRawIterator<'_>,
        mut last: Option<&mut Vec<u8>>,
        visit: Visit<'_>,
    ) -> Answer<()> {
        if self.reverse {
            iterator.seek_to_last()
        } else {
            iterator.seek_to_first()
        }
        while let Some((key, value)) = iterator.item() {
            if !visit(&key[1..], value) {
                return Ok(());
            }
            if let Some(last) = &mut last {
                last.clear();
                last.extend_from_slice(key);
            }
            if self.reverse {
                iterator.prev()
            } else {
                iterator.next()
            }
        }
        iterator.status()
    }
}

/// Copies what was read out of RocksDB's memory.
pub(super) fn copied(answer: Answer<Option<DBPinnableSlice<'_>>>) -> Answer<Option<Vec<u8>>> {
    answer.map(|value| value.map(|value| value.to_vec()))
}

/// Options for reads of the newest state, in memory alone and all.
pub(super) struct Tiers {
    cached: ReadOptions,
    all: ReadOptions,
}

impl Default for Tiers {
    fn default() -> Self {
        Tiers {
            cached: cached(ReadOptions::default()),
            all: ReadOptions::default(),
        }
    }
}

impl Tiers {
    pub(super) fn of(&self, cached: bool) -> &ReadOptions {
        match cached {
            true => &self.cached,
            false => &self.all,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Batch, Engine, Family, Reader, RocksEngine, RocksOptions};

    const ROWS: usize = 3_000;

    fn key(number: usize) -> Vec<u8> {
        format!("{number:06}").into_bytes()
    }

    fn value(number: usize) -> Vec<u8> {
        // Not to be compressed into a block or two.
        let mut random = number as u64 + 1;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as u8
        };
        (0..400).map(|_| next()).collect()
    }

    fn open(folder: &tempfile::TempDir) -> RocksEngine {
        let options = RocksOptions {
            memory_limit_bytes: 8 << 20,
        };
        RocksEngine::open(folder.path(), options).unwrap()
    }

    fn check(reader: &dyn Reader) {
        for number in (0..ROWS).step_by(211) {
            assert_eq!(reader.get(Family::View, &key(number)), Ok(Some(value(number))));
            assert_eq!(
                reader.get(Family::View, &[&key(number)[..], b"x"].concat()),
                Ok(None)
            );
        }
        let wanted: Vec<Vec<u8>> = (0..ROWS + 2).step_by(97).map(key).collect();
        let found = reader.multi_get(Family::View, &wanted).unwrap();
        for (number, found) in (0..ROWS + 2).step_by(97).zip(found) {
            assert_eq!(found, (number < ROWS).then(|| value(number)), "{number}");
        }
        for reverse in [false, true] {
            let mut seen = Vec::new();
            let visit = &mut |key: &[u8], _: &[u8]| {
                seen.push(key.to_vec());
                true
            };
            reader
                .scan(Family::View, &key(100), &key(2_900), reverse, visit)
                .unwrap();
            if reverse {
                seen.reverse();
            }
            assert_eq!(seen, (100..2_900).map(key).collect::<Vec<_>>(), "{reverse}");
            let mut left = 5;
            let stop = &mut |_: &[u8], _: &[u8]| {
                left -= 1;
                left > 0
            };
            reader.scan(Family::View, b"", &[0xFF], reverse, stop).unwrap();
            assert_eq!(left, 0);
        }
    }

    #[test]
    fn what_is_on_the_disk_is_found_by_tasks_too() {
        let folder = tempfile::tempdir().unwrap();
        {
            let engine = open(&folder);
            let mut batch = Batch::new();
            for number in (0..ROWS).step_by(2) {
                batch.put(Family::View, key(number), value(number));
            }
            engine.write(&batch, true).unwrap();
            engine.flush().unwrap();
            // In a second file, and some in memory alone.
            for odd in [1, 3] {
                let mut batch = Batch::new();
                for number in (odd..ROWS).step_by(4) {
                    batch.put(Family::View, key(number), value(number));
                }
                engine.write(&batch, true).unwrap();
                if odd == 1 {
                    engine.flush().unwrap();
                }
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        // With cold caches, in the middle of the blocks and of a scan, and again with what that left in memory.
        for _ in 0..2 {
            let engine = std::sync::Arc::new(open(&folder));
            runtime.block_on(async {
                let task = hearth_core::tasks::spawn("reader", async move {
                    for _ in 0..2 {
                        check(&*engine);
                        check(&*engine.snapshot());
                    }
                });
                task.await.unwrap();
            });
        }
        check(&open(&folder));
    }

    #[test]
    fn a_block_that_is_not_in_memory_hides_no_row_of_another_file() {
        const GAP: usize = 20;
        let between = |number: usize| {
            let keys = (1..10).flat_map(move |digit| (0..6).map(move |end| (number * GAP + digit, end)));
            keys.map(|(number, end)| [&key(number)[..], &[end]].concat())
        };
        let folder = tempfile::tempdir().unwrap();
        {
            // A newer file has the rows around those that are looked up. Its filter lets some of them through, and at the
            // end of a block it takes the next one to know that they are not there.
            let engine = open(&folder);
            let mut batch = Batch::new();
            for key in (0..ROWS / 3).flat_map(between) {
                batch.put(Family::View, key, b"here");
            }
            engine.write(&batch, true).unwrap();
            engine.flush().unwrap();
            let mut batch = Batch::new();
            for number in 0..ROWS / 3 {
                batch.put(Family::View, key(number * GAP), value(number));
            }
            engine.write(&batch, true).unwrap();
            engine.flush().unwrap();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        for frozen in [false, true] {
            let engine = open(&folder);
            runtime.block_on(async {
                let snapshot = engine.snapshot();
                let reader: &dyn Reader = if frozen { &*snapshot } else { &engine };
                for number in 0..ROWS / 3 {
                    let edge = reader.get(Family::View, &key(number * GAP));
                    assert_eq!(edge, Ok(Some(value(number))));
                    let wanted: Vec<Vec<u8>> = between(number).collect();
                    let found = reader.multi_get(Family::View, &wanted).unwrap();
                    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
                    assert_eq!(found, vec![Some(&b"here"[..]); wanted.len()], "{number} {frozen}");
                }
            });
        }
    }
}
