//! A measurement of the log's own cost, without a disk.

use super::*;
use crate::{Family, MemoryEngine, Reader, slot_of};

/// An engine that takes a millisecond for a synced write and keeps nothing.
struct SlowNothing(MemoryEngine);

impl Reader for SlowNothing {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.0.get(family, key)
    }
    fn multi_get(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.0.multi_get(family, keys)
    }
    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        self.0.scan(family, start, end, reverse, visit)
    }
}

impl Engine for SlowNothing {
    fn write(&self, _batch: &Batch, _sync: bool) -> Result<(), Error> {
        std::thread::sleep(Duration::from_millis(1));
        Ok(())
    }
    fn snapshot(&self) -> Box<dyn Reader + '_> {
        self.0.snapshot()
    }
    fn usage_bytes(&self) -> u64 {
        0
    }
    fn compact(&self, _family: Family, _start: &[u8], _end: &[u8]) -> Result<(), Error> {
        Ok(())
    }
    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }
    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time, in hundredths of a second.
    fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum::<u64>()
        * 10_000
}

/// The log's own cost of a commit. Printed only; run it with optimization.
#[test]
#[ignore = "a measurement"]
fn commit_cost() {
    for senders in [1, 16, 64, 512] {
        let engine = Arc::new(SlowNothing(MemoryEngine::new()));
        let log = Log::open(engine, 16).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let commits = if senders == 1 { 1000 } else { 200_000 / senders };
        let (start, cpu) = (Instant::now(), cpu_us());
        runtime.block_on(async {
            let tasks = (0..senders).map(|task| {
                let log = Arc::clone(&log);
                hearth_core::tasks::spawn("committer", async move {
                    for _ in 0..commits {
                        let ticket = log.reserve(ShardId(task as u16 % 16 + 1));
                        let mut record = Record::default();
                        (0..10).for_each(|row| record.batch.put(Family::View, vec![row; 20], vec![row; 70]));
                        let entity = EntityKey {
                            slot: slot_of("!a:x"),
                            no: 1,
                        };
                        record.feed.push(FeedItem {
                            entity,
                            kind: FeedKind::RoomEvent,
                            reference: 1,
                        });
                        ticket.submit(record).await.unwrap();
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
        let total = senders * commits;
        let (wall, cpu) = (start.elapsed(), cpu_us() - cpu);
        println!(
            "{senders} senders: {:.2} us CPU a commit, {:.0}/s",
            cpu as f64 / total as f64,
            total as f64 / wall.as_secs_f64()
        );
    }
}
