//! Tests of the log on the memory engine.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::*;
use crate::{Family, Feed, MemoryEngine, Reader, Start, slot_of};

fn open(engine: Arc<MemoryEngine>, shards: u16, mode: WriterMode) -> Arc<Log> {
    Log::open_with(
        engine,
        LogOptions {
            shards_if_new: shards,
            mode,
            ..LogOptions::default()
        },
    )
    .unwrap()
}

fn inline(shards: u16) -> (Arc<MemoryEngine>, Arc<Log>) {
    let engine = Arc::new(MemoryEngine::new());
    (Arc::clone(&engine), open(engine, shards, WriterMode::Inline))
}

fn row(key: &str) -> Record {
    let mut batch = Batch::new();
    batch.put(Family::View, key, "v");
    Record::of(batch)
}

/// A record that leaves a trace of its position everywhere a record can.
fn traced(shard: ShardId, position: Position) -> Record {
    let mut record = row(&format!("{:05} {position:08}", shard.0));
    let entity = EntityKey {
        slot: Slot::new(0).unwrap(),
        no: 1,
    };
    record.feed.push(FeedItem {
        entity,
        kind: FeedKind::RoomEvent,
        reference: position,
    });
    let target = "@a:x".to_owned();
    record.outbox.push(OutboxRow {
        target_kind: EntityKind::User,
        target,
        op: 1,
        payload: vec![],
    });
    record
}

/// The positions of a shard that are on the engine.
fn stored(engine: &dyn Reader, shard: ShardId) -> Vec<Position> {
    let mut found = Vec::new();
    let start = format!("{:05} ", shard.0);
    let end = crate::prefix_end(start.as_bytes());
    let visit = &mut |key: &[u8], _: &[u8]| {
        found.push(std::str::from_utf8(&key[6..]).unwrap().parse().unwrap());
        true
    };
    engine
        .scan(Family::View, start.as_bytes(), &end, false, visit)
        .unwrap();
    found
}

/// The result of a commit that needs no waiting.
fn now(commit: Commit) -> Option<Result<Position, Error>> {
    let mut commit = std::pin::pin!(commit);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match commit.as_mut().poll(&mut context) {
        std::task::Poll::Ready(result) => Some(result),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn positions_are_written_in_order_and_voids_are_passed() {
    let (engine, log) = inline(1);
    let shard = ShardId(1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    log.on_publish(Box::new(move |published| notes.lock().push(published.position)));
    let tickets: Vec<Ticket> = (0..5).map(|_| log.reserve(shard)).collect();
    let [one, two, three, four, five] = tickets.try_into().ok().unwrap();
    assert_eq!((one.position(), five.position()), (1, 5));
    let second = two.submit(traced(shard, 2));
    drop(three);
    let fourth = four.submit(traced(shard, 4));
    assert_eq!(log.published(shard), 0, "nothing passes the first ticket");
    assert!(stored(&*engine, shard).is_empty());
    let first = one.submit(traced(shard, 1));
    assert_eq!(stored(&*engine, shard), [1, 2, 4]);
    assert_eq!(
        (now(first), now(second), now(fourth)),
        (Some(Ok(1)), Some(Ok(2)), Some(Ok(4)))
    );
    assert_eq!(log.published(shard), 4);
    drop(five);
    assert_eq!(
        log.published(shard),
        4,
        "a void at the end is not on disk, so it is not published"
    );
    assert_eq!(now(log.reserve(shard).submit(traced(shard, 6))), Some(Ok(6)));
    assert_eq!(*seen.lock(), [1, 2, 4, 6]);
    log.close();
    let again = open(engine, 9, WriterMode::Inline);
    assert_eq!(
        again.published_all(),
        [(shard, 6)],
        "the number of shards is kept"
    );
    assert_eq!(again.reserve(shard).position(), 7);
}

#[test]
fn a_void_in_a_group_with_records_is_not_published() {
    let (engine, log) = inline(1);
    let one = ShardId(1);
    let (first, behind) = (log.reserve(one), log.reserve(one));
    drop(behind);
    // Both are taken from the queue at once.
    assert_eq!(now(first.submit(traced(one, 1))), Some(Ok(1)));
    assert_eq!(log.published_all(), [(one, 1)]);
    let waited = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(log.wait_durable(one, 2));
    assert_eq!(waited, Ok(()), "it is settled all the same");
    // The disk knows of nothing behind the record: what comes next has the void's position, and is news to everybody
    // who has seen what was published.
    let again = open(Arc::new(engine.crash()), 9, WriterMode::Inline);
    assert_eq!(again.reserve(one).position(), 2);
}

#[test]
fn a_decided_ticket_that_is_given_up_stops_the_log() {
    let (_, log) = inline(2);
    let fatal = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fatal);
    log.on_fatal(Box::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let mut submitted = log.reserve(ShardId(1));
    submitted.decide();
    assert_eq!(now(submitted.submit(row("a"))), Some(Ok(1)));
    assert!(log.check_writable().is_ok());
    let mut ticket = log.reserve(ShardId(1));
    ticket.decide();
    drop(ticket);
    assert_eq!(fatal.load(Ordering::SeqCst), 1);
    assert_eq!(log.check_writable(), Err(Error::Stopped));
    assert_eq!(
        now(log.reserve(ShardId(1)).submit(row("b"))),
        Some(Err(Error::Stopped))
    );
}

#[test]
fn callbacks_may_use_the_log() {
    let (_, log) = inline(2);
    let (weak, order) = (Arc::downgrade(&log), Arc::new(Mutex::new(Vec::new())));
    let (before, after) = (Arc::clone(&order), Arc::clone(&order));
    let before_log = weak.clone();
    log.before_publish(Box::new(move |published| {
        let log = before_log.upgrade().unwrap();
        assert!(log.published(published.shard) < published.position);
        before
            .lock()
            .push(("before", published.shard, published.position));
    }));
    log.on_publish(Box::new(move |published| {
        let log = weak.upgrade().unwrap();
        assert!(log.published(published.shard) >= published.position);
        after.lock().push(("after", published.shard, published.position));
        if published.shard == ShardId(1) {
            drop(log.reserve(ShardId(2)).submit(row("effect")));
        }
    }));
    assert_eq!(now(log.reserve(ShardId(1)).submit(row("cause"))), Some(Ok(1)));
    let expected = [(1, "before"), (1, "after"), (2, "before"), (2, "after")];
    assert_eq!(
        *order.lock(),
        expected.map(|(shard, what)| (what, ShardId(shard), 1))
    );
}

#[test]
fn a_failed_write_stops_everything() {
    for mode in [WriterMode::Inline, WriterMode::Thread] {
        let engine = Arc::new(MemoryEngine::new());
        let log = open(Arc::clone(&engine), 2, mode);
        let fatal = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&fatal);
        log.on_fatal(Box::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            log.reserve(ShardId(1)).submit(row("a")).await.unwrap();
            engine.crash_after(0);
            let held = log.reserve(ShardId(2));
            let behind = log.reserve(ShardId(2)).submit(row("b"));
            assert_eq!(
                log.reserve(ShardId(1)).submit(row("c")).await,
                Err(Error::Stopped)
            );
            assert_eq!(behind.await, Err(Error::Stopped));
            assert_eq!(held.submit(row("d")).await, Err(Error::Stopped));
            assert_eq!(log.wait_durable(ShardId(2), 1).await, Err(Error::Stopped));
            assert_eq!(log.check_writable(), Err(Error::Stopped));
        });
        assert_eq!(fatal.load(Ordering::SeqCst), 1);
        assert_eq!(log.published_all(), [(ShardId(1), 1), (ShardId(2), 0)]);
        let again = open(Arc::new(engine.crash()), 1, mode);
        assert_eq!(again.published_all(), [(ShardId(1), 1), (ShardId(2), 0)]);
        assert!(again.check_writable().is_ok());
    }
}

#[test]
fn a_panic_in_a_callback_stops_the_log() {
    let log = open(Arc::new(MemoryEngine::new()), 1, WriterMode::Thread);
    log.on_publish(Box::new(|_| panic!("on purpose")));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(
        runtime.block_on(log.reserve(ShardId(1)).submit(row("a"))),
        Err(Error::Stopped)
    );
    assert_eq!(log.check_writable(), Err(Error::Stopped));
}

#[test]
fn waiting_ends_when_a_position_is_settled() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (_, log) = inline(1);
        let shard = ShardId(1);
        let (one, two) = (log.reserve(shard), log.reserve(shard));
        let wait = log.wait_durable(shard, 2);
        let work = async {
            drop(two);
            tokio::task::yield_now().await;
            assert_eq!(one.submit(row("a")).await, Ok(1));
        };
        let (waited, ()) = tokio::join!(wait, work);
        assert_eq!(waited, Ok(()));
        let three = log.reserve(shard);
        let (waited, ()) = tokio::join!(log.wait_durable(shard, 3), async { drop(three) });
        assert_eq!(waited, Ok(()), "also a void at the end");
    });
}

#[test]
fn a_full_disk_refuses_new_operations_and_nothing_else() {
    let (engine, log) = inline(1);
    engine.set_free_bytes(Some(DISK_RESERVE_BYTES - 1));
    assert_eq!(log.check_writable(), Err(Error::DiskFull));
    assert_eq!(now(log.reserve(ShardId(1)).submit(row("purge"))), Some(Ok(1)));
    let (engine, log) = inline(1);
    engine.set_free_bytes(Some(DISK_RESERVE_BYTES));
    assert_eq!(log.check_writable(), Ok(()));
}

#[test]
fn entities_belong_to_the_shard_of_their_slot() {
    let (_, log) = inline(16);
    for name in ["!a:x", "!b:x", "@c:x", "#d:x", "x/e"] {
        let slot = slot_of(name);
        let id = log.shard_of(slot);
        let info = log.shards().iter().find(|info| info.id == id).unwrap();
        assert!(info.first <= slot && slot <= info.last);
    }
    let edges: Vec<ShardId> = [0, 1023, 1024, 16_383]
        .map(|n| log.shard_of(Slot::new(n).unwrap()))
        .to_vec();
    assert_eq!(edges, [1, 1, 2, 16].map(ShardId));
}

#[test]
fn names_are_free_again_when_their_batch_is_given_up() {
    let (engine, log) = inline(4);
    let shard = log.shard_of(slot_of("!a:x"));
    let mut batch = Batch::new();
    log.allocate(EntityKind::Room, "!a:x", &mut batch).unwrap();
    let ticket = log.reserve(shard);
    assert_eq!(
        log.allocate(EntityKind::Room, "!a:x", &mut Batch::new()),
        Err(Error::Exists)
    );
    drop((ticket, batch));
    let mut batch = Batch::new();
    let key = log.allocate(EntityKind::Room, "!a:x", &mut batch).unwrap();
    assert_eq!(now(log.reserve(shard).submit(Record::of(batch))), Some(Ok(2)));
    assert_eq!(
        log.allocate(EntityKind::Room, "!a:x", &mut Batch::new()),
        Err(Error::Exists)
    );
    assert_eq!(crate::entity(&*engine, EntityKind::Room, "!a:x"), Ok(Some(key)));
}

#[test]
fn a_row_of_a_feed_that_cannot_be_read_holds_up_none_behind_it() {
    let (engine, log) = inline(1);
    let shard = log.shards()[0].id;
    for position in 1..=3 {
        assert!(now(log.reserve(shard).submit(traced(shard, position))).is_some());
    }
    log.close();
    let mut batch = Batch::new();
    let key = crate::schema::feed::FeedKey { shard, position: 2 };
    batch.put(Family::Feed, key.encode(), [9]);
    engine.write(&batch, true).unwrap();
    let log = open(Arc::new(engine.crash()), 1, WriterMode::Inline);
    let read = Feed::new(&log).read(shard, 0, 10).unwrap();
    let found: Vec<_> = read.iter().map(|(at, items)| (*at, items.len())).collect();
    assert_eq!(found, [(1, 1), (2, 0), (3, 1)]);
}

#[test]
fn feeds_are_read_behind_durable_cursors_and_trimmed() {
    let (engine, log) = inline(2);
    let shard = ShardId(2);
    let feed = Feed::new(&log);
    let write = |position| {
        assert_eq!(
            now(log.reserve(shard).submit(traced(shard, position))),
            Some(Ok(position))
        )
    };
    write(1);
    feed.register("old", Start::Oldest).unwrap();
    feed.register("new", Start::Now).unwrap();
    drop(log.reserve(shard));
    write(3);
    assert_eq!(now(log.reserve(shard).submit(row("no item"))), Some(Ok(4)));
    write(5);
    let positions = |after, limit| -> Vec<Position> {
        let read = feed.read(shard, after, limit).unwrap();
        read.into_iter()
            .inspect(|(at, items)| assert_eq!(items[0].reference, *at))
            .map(|(at, _)| at)
            .collect()
    };
    assert_eq!((feed.cursor("old", shard), feed.cursor("new", shard)), (0, 1));
    assert_eq!(positions(0, 10), [1, 3, 5]);
    assert_eq!(positions(1, 1), [3]);
    assert!(positions(5, 10).is_empty());
    feed.trim(shard).unwrap();
    assert_eq!(positions(0, 10), [1, 3, 5], "one duty has read nothing");
    feed.set_cursor("old", shard, 5);
    feed.set_cursor("new", shard, 3);
    feed.trim(shard).unwrap();
    assert_eq!(positions(0, 10), [1, 3, 5], "the cursors are not on disk yet");
    log.close();
    feed.trim(shard).unwrap();
    assert_eq!(positions(0, 10), [5], "behind the slowest");
    let log = open(Arc::new(engine.crash()), 2, WriterMode::Inline);
    let feed = Feed::new(&log);
    assert_eq!((feed.cursor("old", shard), feed.cursor("new", shard)), (5, 3));
    feed.unregister("new").unwrap();
    feed.trim(shard).unwrap();
    assert_eq!(feed.read(shard, 0, 10), Ok(vec![]));
}

#[test]
fn many_committers_share_few_writes() {
    let log = open(Arc::new(MemoryEngine::new()), 4, WriterMode::Thread);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks = (0..64_u16).map(|task| {
            let log = Arc::clone(&log);
            hearth_core::tasks::spawn("committer", async move {
                for _ in 0..50 {
                    let ticket = log.reserve(ShardId(task % 4 + 1));
                    let (shard, position) = (ticket.shard(), ticket.position());
                    if position % 7 == 0 {
                        drop(ticket);
                        log.wait_durable(shard, position).await.unwrap();
                        continue;
                    }
                    assert_eq!(ticket.submit(traced(shard, position)).await, Ok(position));
                    assert!(log.published(shard) >= position);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    for shard in 1..=4 {
        let expected: Vec<Position> = (1..=800).filter(|position| position % 7 != 0).collect();
        assert_eq!(stored(&**log.engine(), ShardId(shard)), expected);
    }
}

/// What a run does with its tickets.
#[derive(Clone, Debug)]
enum Step {
    Reserve(u16),
    Submit(usize),
    Drop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..=3_u16).prop_map(Step::Reserve),
        4 => any::<usize>().prop_map(Step::Submit),
        1 => any::<usize>().prop_map(Step::Drop),
    ];
    prop::collection::vec(step, 1..60)
}

/// Runs the steps, and gives for each shard what was submitted and what was acknowledged. Tickets that
/// are open at the end stay so.
fn play(
    log: &Arc<Log>,
    steps: &[Step],
    tickets: &mut Vec<Ticket>,
) -> BTreeMap<ShardId, (Vec<Position>, Vec<Position>)> {
    let mut commits: Vec<(ShardId, Commit)> = Vec::new();
    let mut outcome: BTreeMap<ShardId, (Vec<Position>, Vec<Position>)> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Reserve(shard) => tickets.push(log.reserve(ShardId(*shard))),
            Step::Submit(at) if !tickets.is_empty() => {
                let ticket = tickets.swap_remove(at % tickets.len());
                let (shard, position) = (ticket.shard(), ticket.position());
                outcome.entry(shard).or_default().0.push(position);
                commits.push((shard, ticket.submit(traced(shard, position))));
            }
            Step::Drop(at) if !tickets.is_empty() => drop(tickets.swap_remove(at % tickets.len())),
            Step::Submit(_) | Step::Drop(_) => {}
        }
    }
    for (shard, commit) in commits {
        if let Some(Ok(position)) = now(commit) {
            outcome.entry(shard).or_default().1.push(position);
        }
    }
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the order of tickets and wherever the crash: all that was acknowledged is there, and of the
    /// rest of each shard a prefix.
    #[test]
    fn a_crash_keeps_the_acknowledged_and_a_prefix(steps in steps(), writes in 0..20_u64, seed: u64, keep: bool) {
        let (engine, log) = inline(3);
        engine.crash_after(writes);
        let mut tickets = Vec::new();
        let outcome = play(&log, &steps, &mut tickets);
        let survivor = Arc::new(if keep { engine.crash_keeping_some(seed) } else { engine.crash() });
        drop((tickets, log));
        let log = open(Arc::clone(&survivor), 3, WriterMode::Inline);
        let feed = Feed::new(&log);
        for (shard, (mut submitted, mut acknowledged)) in outcome {
            submitted.sort_unstable();
            acknowledged.sort_unstable();
            let found = stored(&*survivor, shard);
            prop_assert!(submitted.starts_with(&found), "{found:?} of {submitted:?}");
            prop_assert!(found.starts_with(&acknowledged), "{acknowledged:?} in {found:?}");
            prop_assert!(keep || found == acknowledged);
            prop_assert_eq!(log.published(shard), found.last().copied().unwrap_or(0));
            let fed: Vec<Position> = feed.read(shard, 0, 1000).unwrap().into_iter().map(|(at, _)| at).collect();
            prop_assert_eq!(&fed, &found);
            let next = log.reserve(shard).position();
            prop_assert!(found.iter().all(|used| *used < next));
        }
    }
}
