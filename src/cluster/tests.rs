//! Tests of delivery on the memory engine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_storage::{Batch, EntityKind, Family, LogOptions, MemoryEngine, OutboxRow, WriterMode, slot_of};

use super::*;

const OP: u8 = 7;

/// Writes each row that it applies into the target's shard, and fails as often as it is told to.
struct Recorder {
    log: Arc<Log>,
    seen: Mutex<Vec<(String, u8)>>,
    failures_left: AtomicUsize,
    panics: bool,
}

impl Recorder {
    fn new(log: &Arc<Log>, failures: usize, panics: bool) -> Arc<Recorder> {
        let failures_left = AtomicUsize::new(failures);
        Arc::new(Recorder {
            log: Arc::clone(log),
            seen: Mutex::default(),
            failures_left,
            panics,
        })
    }

    fn seen(&self) -> Vec<(String, u8)> {
        self.seen.lock().clone()
    }
}

#[async_trait]
impl OutboxHandler for Recorder {
    async fn apply(
        &self,
        target: &str,
        payload: &[u8],
        source: (ShardId, Position, u16),
    ) -> Result<(), Error> {
        tokio::task::yield_now().await;
        if self
            .failures_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            assert!(!self.panics, "on purpose");
            return Err(Error::Apply("not yet".to_owned()));
        }
        if target == "@damaged:x" && payload[0] == 1 {
            return Err(Error::Corrupt("payload"));
        }
        if target == "@refusing:x" && payload[0] == 1 {
            return Err(Error::Apply("never".to_owned()));
        }
        assert!(target != "@bad:x" || payload[0] != 1, "on purpose");
        if target == "@slow:x" {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        self.seen.lock().push((target.to_owned(), payload[0]));
        let mut batch = Batch::new();
        batch.put(Family::View, format!("{target} {source:?}"), "v");
        self.log
            .reserve(self.log.shard_of(slot_of(target)))
            .submit(Record::of(batch))
            .await
            .map(|_| ())
    }
}

fn open(engine: Arc<MemoryEngine>) -> Arc<Log> {
    let options = LogOptions {
        shards_if_new: 4,
        mode: WriterMode::Inline,
        ..LogOptions::default()
    };
    Log::open_with(engine, options).unwrap()
}

fn effects(rows: &[(&str, u8)]) -> Record {
    let row = |(target, number): &(&str, u8)| OutboxRow {
        target_kind: EntityKind::User,
        target: (*target).to_owned(),
        op: OP,
        payload: vec![*number],
    };
    Record {
        outbox: rows.iter().map(row).collect(),
        ..Record::default()
    }
}

fn outbox_rows(log: &Log) -> usize {
    let mut rows = 0;
    log.engine()
        .scan(Family::Outbox, &[], &[0xFF], false, &mut |_, _| {
            rows += 1;
            true
        })
        .unwrap();
    rows
}

fn seen(rows: &[(&str, u8)]) -> Vec<(String, u8)> {
    rows.iter()
        .map(|(target, number)| ((*target).to_owned(), *number))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn effects_are_applied_before_a_commit_returns() {
    let log = open(Arc::new(MemoryEngine::new()));
    let cluster = Cluster::new(Arc::clone(&log));
    let recorder = Recorder::new(&log, 0, false);
    cluster.register(OP, Arc::clone(&recorder) as Arc<dyn OutboxHandler>);
    cluster.start().unwrap();
    let slot = slot_of("!room:x");
    cluster
        .commit(slot, |_| effects(&[("@a:x", 1), ("@a:x", 2)]))
        .await
        .unwrap();
    assert_eq!(recorder.seen(), seen(&[("@a:x", 1), ("@a:x", 2)]));
    let position = cluster.commit(slot, |_| Record::default()).await.unwrap();
    cluster.delivered(log.shard_of(slot), position).await;
    assert_eq!(outbox_rows(&log), 0, "the next commit takes applied rows away");
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_in_order() {
    for panics in [false, true] {
        let log = open(Arc::new(MemoryEngine::new()));
        let cluster = Cluster::new(Arc::clone(&log));
        let recorder = Recorder::new(&log, 3, panics);
        cluster.register(OP, Arc::clone(&recorder) as Arc<dyn OutboxHandler>);
        cluster.start().unwrap();
        let slot = slot_of("!room:x");
        let first = cluster.commit(slot, |_| effects(&[("@a:x", 1)]));
        let second = cluster.commit(slot, |_| effects(&[("@a:x", 2)]));
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(recorder.seen(), seen(&[("@a:x", 1), ("@a:x", 2)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_target_delays_no_other() {
    let log = open(Arc::new(MemoryEngine::new()));
    let cluster = Cluster::new(Arc::clone(&log));
    let recorder = Recorder::new(&log, 0, false);
    cluster.register(OP, Arc::clone(&recorder) as Arc<dyn OutboxHandler>);
    cluster.start().unwrap();
    let slot = slot_of("!room:x");
    let slow = cluster.commit(slot, |_| effects(&[("@slow:x", 1), ("@b:x", 2)]));
    let quick = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.commit(slot, |_| effects(&[("@a:x", 3)])).await.unwrap();
        assert_eq!(recorder.seen(), seen(&[("@b:x", 2), ("@a:x", 3)]));
    };
    let (slow, ()) = tokio::join!(slow, quick);
    assert!(slow.is_ok());
    assert_eq!(recorder.seen().len(), 3);
}

/// Neither who waits for it nor what comes behind it hangs on a row that can never be applied; it stays for a later version.
#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_applied_holds_up_nothing() {
    for target in ["@damaged:x", "@bad:x", "@refusing:x"] {
        let log = open(Arc::new(MemoryEngine::new()));
        let cluster = Cluster::new(Arc::clone(&log));
        let recorder = Recorder::new(&log, 0, false);
        cluster.register(OP, Arc::clone(&recorder) as Arc<dyn OutboxHandler>);
        cluster.start().unwrap();
        let slot = slot_of("!room:x");
        let both = cluster.commit(slot, |_| effects(&[(target, 1), (target, 2)]));
        let bound = Duration::from_secs(3600);
        let done = tokio::time::timeout(bound, both)
            .await
            .expect("it is not waited for");
        assert_eq!(done, Ok(1));
        assert_eq!(recorder.seen(), seen(&[(target, 2)]));
        cluster.commit(slot, |_| Record::default()).await.unwrap();
        assert_eq!(outbox_rows(&log), 1);
    }
}

/// What the storage cannot take now is promised for as long as that takes: only what is no matter of the storage is given up.
#[tokio::test(start_paused = true)]
async fn a_failure_of_the_storage_is_tried_again_for_as_long_as_it_takes() {
    struct Full(AtomicUsize);

    #[async_trait]
    impl OutboxHandler for Full {
        async fn apply(&self, _: &str, _: &[u8], _: Source) -> Result<(), Error> {
            match self.0.fetch_add(1, Ordering::SeqCst) < 100 {
                true => Err(Error::DiskFull),
                false => Ok(()),
            }
        }
    }

    let log = open(Arc::new(MemoryEngine::new()));
    let cluster = Cluster::new(Arc::clone(&log));
    cluster.register(OP, Arc::new(Full(AtomicUsize::new(0))));
    cluster.start().unwrap();
    let slot = slot_of("!room:x");
    cluster.commit(slot, |_| effects(&[("@a:x", 1)])).await.unwrap();
    cluster.commit(slot, |_| Record::default()).await.unwrap();
    assert_eq!(outbox_rows(&log), 0);
}

/// After a panic a delivery begins anew with what is on the disk: whatever it had in hand is applied, in order.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_begins_anew_loses_nothing() {
    let log = open(Arc::new(MemoryEngine::new()));
    let cluster = Cluster::new(Arc::clone(&log));
    let recorder = Recorder::new(&log, 0, false);
    cluster.register(OP, Arc::clone(&recorder) as Arc<dyn OutboxHandler>);
    let slot = slot_of("!room:x");
    let shard = log.shard_of(slot);
    let queues = cluster.queues.lock().take().unwrap();
    let (_, queue) = queues.into_iter().find(|(of, _)| *of == shard).unwrap();
    let outbox = Outbox {
        log: Arc::clone(&log),
        shard,
        handlers: Arc::clone(&cluster.handlers),
        ledger: Arc::clone(&cluster.ledgers[&shard]),
    };
    let delivery = Arc::new(Delivery::new(outbox, queue, Shutdown::new()).unwrap());
    let waits = cluster.commit(slot, |_| effects(&[("@slow:x", 1), ("@slow:x", 2), ("@a:x", 3)]));
    let delivers = async {
        // The slow one takes five seconds.
        let first = Arc::clone(&delivery).run();
        assert!(tokio::time::timeout(Duration::from_secs(1), first).await.is_err());
        assert_eq!(recorder.seen(), seen(&[("@a:x", 3)]));
        let second = Arc::clone(&delivery).run();
        assert!(
            tokio::time::timeout(Duration::from_secs(60), second)
                .await
                .is_err()
        );
    };
    let (waited, ()) = tokio::join!(waits, delivers);
    assert_eq!(waited, Ok(1), "who waited is let go");
    assert_eq!(recorder.seen().last(), Some(&("@slow:x".to_owned(), 2)));
    assert!(recorder.seen().contains(&("@slow:x".to_owned(), 1)));
    cluster.commit(slot, |_| Record::default()).await.unwrap();
    assert_eq!(outbox_rows(&log), 0);
}

#[tokio::test(start_paused = true)]
async fn rows_left_by_a_crash_are_delivered_first() {
    let engine = Arc::new(MemoryEngine::new());
    let log = open(Arc::clone(&engine));
    let shard = log.shard_of(slot_of("!room:x"));
    for number in 1..=3 {
        log.reserve(shard)
            .submit(effects(&[("@a:x", number), ("@b:x", number)]))
            .await
            .unwrap();
    }
    let log = open(Arc::new(engine.crash()));
    let cluster = Cluster::new(Arc::clone(&log));
    let recorder = Recorder::new(&log, 0, false);
    // This one is published after the cluster is made and before it starts.
    let early = log.reserve(shard).submit(effects(&[("@a:x", 4)])).await.unwrap();
    cluster.register(OP, Arc::clone(&recorder) as Arc<dyn OutboxHandler>);
    cluster.start().unwrap();
    cluster.delivered(shard, early).await;
    let of = |name: &str| -> Vec<u8> {
        recorder
            .seen()
            .iter()
            .filter(|(to, _)| to == name)
            .map(|(_, n)| *n)
            .collect()
    };
    assert_eq!(of("@a:x"), [1, 2, 3, 4]);
    cluster
        .commit(slot_of("!room:x"), |_| effects(&[("@b:x", 5)]))
        .await
        .unwrap();
    assert_eq!(of("@b:x"), [1, 2, 3, 5], "each once, in order");
    log.close();
    assert_eq!(outbox_rows(&log), 0);
}

#[tokio::test(start_paused = true)]
async fn stopping_answers_those_who_wait() {
    let log = open(Arc::new(MemoryEngine::new()));
    let cluster = Cluster::new(Arc::clone(&log));
    let recorder = Recorder::new(&log, usize::MAX, false);
    cluster.register(OP, recorder as Arc<dyn OutboxHandler>);
    cluster.start().unwrap();
    let wait = cluster.commit(slot_of("!room:x"), |_| effects(&[("@a:x", 1)]));
    let stop = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.stop();
    };
    let (waited, ()) = tokio::join!(wait, stop);
    assert_eq!(waited, Ok(1), "the change itself is durable");
    assert_eq!(outbox_rows(&log), 1, "it is delivered after the next start");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_sees_every_row_of_every_shard() {
    let log = open(Arc::new(MemoryEngine::new()));
    let cluster = Cluster::new(Arc::clone(&log));
    let key = |number: u16| [number.to_be_bytes().as_slice(), &[7]].concat();
    let slot = |number: u16| hearth_storage::Slot::new(number).unwrap();
    // More than two pages, over all shards.
    for number in (0..16_384).step_by(7) {
        let mut batch = Batch::new();
        batch.put(Family::RoomTxn, key(number), [(number % 3) as u8]);
        cluster.commit(slot(number), |_| Record::of(batch)).await.unwrap();
    }
    let all = (0..16_384).step_by(7).count() as u64;
    let judge = |_: &[u8], value: &[u8]| match value {
        [0] => Fate::Remove,
        [1] => Fate::Replace(vec![2]),
        _ => Fate::Keep,
    };
    let pool = hearth_core::Pool::inline();
    let changed = cluster.sweep(&pool, Family::RoomTxn, judge).await.unwrap();
    let mut left = Vec::new();
    log.engine()
        .scan(Family::RoomTxn, &[], &[0xFF], false, &mut |_, value| {
            left.push(value.to_vec());
            true
        })
        .unwrap();
    assert!(left.iter().all(|value| value == &[2]));
    let twos = (0..16_384_u16)
        .step_by(7)
        .filter(|number| number % 3 == 2)
        .count() as u64;
    assert_eq!(changed, all - twos);
    let zeros = (0..16_384_u16)
        .step_by(7)
        .filter(|number| number % 3 == 0)
        .count();
    assert_eq!(left.len(), all as usize - zeros);
    assert_eq!(cluster.sweep(&pool, Family::RoomTxn, judge).await, Ok(0));
}
