//! Tests of shards that are dropped and opened while the log goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::schema::cursor::CursorKey;
use crate::{Family, Feed, MemoryEngine, Reader as _, Start};

const ONE: ShardId = ShardId(1);
const TWO: ShardId = ShardId(2);
const DUTY: &str = "a duty";

/// Two logs on the same data, of which the second has no shard open.
async fn two_logs(mode: WriterMode) -> (Arc<MemoryEngine>, Arc<Log>, Arc<Log>) {
    let engine = Arc::new(MemoryEngine::new());
    let open = || {
        let options = LogOptions {
            shards_if_new: 2,
            mode,
            ..LogOptions::default()
        };
        Log::open_with(engine.clone(), options).unwrap()
    };
    let first = open();
    let second = open();
    for shard in [ONE, TWO] {
        second.drop_shard(shard).await.unwrap();
    }
    (engine, first, second)
}

/// A record that leaves a row with its position and an item in the feed.
fn record(shard: ShardId, position: Position) -> Record {
    let mut record = Record::default();
    record
        .batch
        .put(Family::View, format!("{:05} {position:08}", shard.0), "v");
    record.feed.push(FeedItem {
        entity: EntityKey {
            slot: Slot::new(0).unwrap(),
            no: 1,
        },
        kind: FeedKind::RoomEvent,
        reference: position,
    });
    record
}

fn submit(log: &Log, shard: ShardId) -> Commit {
    let ticket = log.reserve(shard);
    let record = record(shard, ticket.position());
    ticket.submit(record)
}

/// The result of a future that needs no waiting.
fn now<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(result) => Some(result),
        std::task::Poll::Pending => None,
    }
}

fn is_stored(engine: &dyn Engine, shard: ShardId, position: Position) -> bool {
    let key = format!("{:05} {position:08}", shard.0);
    engine.get(Family::View, key.as_bytes()).unwrap().is_some()
}

#[tokio::test]
async fn a_dropped_shard_takes_nothing_and_the_others_go_on() {
    let (engine, log, _) = two_logs(WriterMode::Inline).await;
    assert_eq!(submit(&log, ONE).await, Ok(1));
    log.drop_shard(ONE).await.unwrap();
    assert!(!log.is_open(ONE) && log.is_open(TWO));
    assert_eq!(submit(&log, ONE).await, Err(Error::NotOpen));
    assert_eq!(log.wait_durable(ONE, 2).await, Err(Error::NotOpen));
    assert_eq!(log.wait_durable(ONE, 1).await, Ok(()), "that was before");
    assert_eq!(log.drop_shard(ONE).await, Err(Error::NotOpen));
    assert_eq!(submit(&log, TWO).await, Ok(1));
    // A decision that is given up stops a log whose memory would be ahead; of a shard that is gone there is no memory.
    let mut late = log.reserve(ONE);
    late.decide();
    drop(late);
    assert_eq!(log.check_writable(), Ok(()));
    log.open_shard(ONE).unwrap();
    log.open_shard(ONE).unwrap();
    assert_eq!(submit(&log, ONE).await, Ok(2));
    assert!(is_stored(&*engine, ONE, 2));
    assert_eq!(log.published_all(), [(ONE, 2), (TWO, 1)]);
}

#[tokio::test]
async fn what_was_reserved_is_written_before_the_shard_is_gone() {
    let (engine, log, _) = two_logs(WriterMode::Thread).await;
    let (first, void, last) = (log.reserve(ONE), log.reserve(ONE), log.reserve(ONE));
    let mut dropping = Box::pin(log.drop_shard(ONE));
    assert_eq!(now(&mut dropping), None);
    let late = log.reserve(ONE);
    let third = last.submit(record(ONE, 3));
    assert_eq!(first.submit(record(ONE, 1)).await, Ok(1));
    assert_eq!(now(&mut dropping), None, "one ticket is open still");
    drop(void);
    assert_eq!(third.await, Ok(3));
    assert_eq!(dropping.await, Ok(()));
    assert!(is_stored(&*engine, ONE, 1) && is_stored(&*engine, ONE, 3));
    assert_eq!(late.submit(record(ONE, 4)).await, Err(Error::NotOpen));
    log.open_shard(ONE).unwrap();
    assert_eq!(submit(&log, ONE).await, Ok(4));
}

#[tokio::test]
async fn a_drop_that_was_given_up_can_be_tried_again() {
    let (_, log, _) = two_logs(WriterMode::Inline).await;
    let held = log.reserve(ONE);
    let short = Duration::from_millis(1);
    assert!(tokio::time::timeout(short, log.drop_shard(ONE)).await.is_err());
    assert_eq!(log.open_shard(ONE), Err(Error::NotOpen), "somebody has a ticket");
    drop(held);
    assert_eq!(log.drop_shard(ONE).await, Ok(()));
    assert_eq!(log.open_shard(ONE), Ok(()));
}

#[tokio::test]
async fn another_log_goes_on_where_the_first_ended() {
    let (engine, first, second) = two_logs(WriterMode::Inline).await;
    let feed = Feed::new(&first);
    feed.register(DUTY, Start::Now).unwrap();
    assert_eq!(submit(&first, ONE).await, Ok(1));
    feed.set_cursor(DUTY, ONE, 1);
    assert_eq!(submit(&second, ONE).await, Err(Error::NotOpen));
    first.drop_shard(ONE).await.unwrap();
    second.open_shard(ONE).unwrap();
    assert_eq!(second.published(ONE), 1);
    let theirs = Feed::new(&second);
    assert_eq!(theirs.cursor(DUTY, ONE), 1, "the cursor that was not written yet");
    assert_eq!(submit(&second, ONE).await, Ok(2));
    assert_eq!(
        submit(&first, ONE).await,
        Err(Error::NotOpen),
        "the stale owner is refused"
    );
    let read: Vec<Position> = theirs
        .read(ONE, 0, 10)
        .unwrap()
        .iter()
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(read, [1, 2]);
    theirs.set_cursor(DUTY, ONE, 2);
    second.drop_shard(ONE).await.unwrap();
    // What the first one's duty says meanwhile is of no account, nor does it think itself unknown.
    feed.set_cursor(DUTY, ONE, 1);
    assert!(feed.is_registered(DUTY));
    feed.register(DUTY, Start::Oldest).unwrap();
    first.open_shard(ONE).unwrap();
    assert_eq!(feed.cursor(DUTY, ONE), 2);
    assert_eq!(submit(&first, ONE).await, Ok(3));
    let read: Vec<Position> = feed.read(ONE, 0, 10).unwrap().iter().map(|(at, _)| *at).collect();
    assert_eq!(read, [1, 2, 3]);
    let key = CursorKey {
        duty: DUTY.into(),
        shard: ONE,
    };
    let stored = engine.get(Family::Cursor, &key.encode()).unwrap().unwrap();
    assert_eq!(stored[1..], 2_u64.to_be_bytes());
}

#[tokio::test]
async fn no_number_is_given_twice() {
    let (_, first, second) = two_logs(WriterMode::Inline).await;
    // Names of one slot, so that they take numbers from one counter.
    let slot = slot_of("!0:x");
    let shard = first.shard_of(slot);
    let mut names = (0..)
        .map(|n| format!("!{n}:x"))
        .filter(|name| slot_of(name) == slot);
    let mut seen = BTreeSet::new();
    let mut create = async |log: &Log, name: &str| {
        let mut batch = Batch::new();
        let key = log.allocate(EntityKind::Room, name, &mut batch)?;
        log.reserve(shard).submit(Record::of(batch)).await?;
        assert!(seen.insert(key.no), "{} is given twice", key.no);
        Ok::<(), Error>(())
    };
    assert_eq!(create(&first, &names.next().unwrap()).await, Ok(()));
    let (mut held, name) = (Batch::new(), names.next().unwrap());
    first.allocate(EntityKind::Room, &name, &mut held).unwrap();
    first.drop_shard(shard).await.unwrap();
    let (mut refused, name) = (Batch::new(), names.next().unwrap());
    assert_eq!(
        first.allocate(EntityKind::Room, &name, &mut refused),
        Err(Error::NotOpen)
    );
    second.open_shard(shard).unwrap();
    for _ in 0..2 {
        assert_eq!(create(&second, &names.next().unwrap()).await, Ok(()));
    }
    second.drop_shard(shard).await.unwrap();
    first.open_shard(shard).unwrap();
    // A number from before: the other log has given it meanwhile.
    let stale = first.reserve(shard).submit(Record::of(held));
    assert_eq!(stale.await, Err(Error::NotOpen));
    assert_eq!(create(&first, &names.next().unwrap()).await, Ok(()));
}

/// Two logs pass a shard to and fro while both are used by writers that know nothing of it, and another shard is
/// written all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_while_a_shard_moves() {
    const MOVES: usize = 20;
    let (engine, first, second) = two_logs(WriterMode::Thread).await;
    let stop = Arc::new(AtomicBool::new(false));
    let write = |log: &Arc<Log>, shard| {
        let (log, stop) = (log.clone(), stop.clone());
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let seen = outcomes.clone();
        let writing = async move {
            while !stop.load(Ordering::Acquire) {
                let outcome = submit(&log, shard).await;
                if outcome != Err(Error::NotOpen) {
                    seen.lock().push(outcome);
                }
                tokio::task::yield_now().await;
            }
        };
        (hearth_core::tasks::spawn("writer", writing), outcomes)
    };
    let writers = [write(&first, ONE), write(&second, ONE), write(&first, ONE)];
    let beside = write(&first, TWO);
    let (mut owner, mut next) = (&first, &second);
    for _ in 0..MOVES {
        let before = owner.published(ONE);
        let written = async {
            while owner.published(ONE) < before + 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), written)
            .await
            .unwrap();
        owner.drop_shard(ONE).await.unwrap();
        next.open_shard(ONE).unwrap();
        assert!(next.published(ONE) >= before + 3);
        (owner, next) = (next, owner);
    }
    stop.store(true, Ordering::Release);
    let mut all = Vec::new();
    for (writer, outcomes) in writers {
        writer.await.unwrap();
        all.append(&mut outcomes.lock());
    }
    let all: Vec<Position> = all.into_iter().map(Result::unwrap).collect();
    let distinct: BTreeSet<Position> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len(), "a position was given twice");
    assert!(all.len() >= 3 * MOVES);
    assert!(all.iter().all(|position| is_stored(&*engine, ONE, *position)));
    beside.0.await.unwrap();
    let undisturbed = beside.1.lock();
    assert!(!undisturbed.is_empty());
    for outcome in undisturbed.iter() {
        assert!(is_stored(&*engine, TWO, outcome.clone().unwrap()));
    }
}
