use std::sync::Arc;

use async_trait::async_trait;
use hearth_core::Shutdown;
use hearth_core::clock::Clock;
use hearth_core::error::MatrixError;
use parking_lot::Mutex;
use ruma::{OwnedEventId, event_id, room_id};

use super::*;
use crate::tests::World;

/// Sends by writing down what it was given; refuses where it is told to.
#[derive(Default)]
struct Sender {
    sent: Mutex<Vec<String>>,
    refusal: Mutex<Option<MatrixError>>,
}

#[async_trait]
impl DelayedSender for Sender {
    async fn send(&self, event: &DelayedEvent) -> std::result::Result<OwnedEventId, Box<MatrixError>> {
        if let Some(error) = self.refusal.lock().clone() {
            return Err(Box::new(error));
        }
        self.sent.lock().push(event.kind.clone());
        Ok(event_id!("$sent:example.org").to_owned())
    }
}

fn new(kind: &str, delay_ms: u64) -> NewDelayedEvent {
    NewDelayedEvent {
        room_id: room_id!("!room:example.org").to_owned(),
        kind: kind.to_owned(),
        state_key: None,
        content: RawValue::from_string(r#"{"b":1,"a":2}"#.to_owned()).unwrap(),
        delay_ms,
        timestamp_ms: None,
        txn: None,
    }
}

async fn scheduled(user: &User, new: NewDelayedEvent) -> String {
    match user.delay_event(new, 10).await.unwrap() {
        Delay::Scheduled(id) => id,
        Delay::TooMany(_) => panic!("too many"),
    }
}

fn started(world: &World, sender: &Arc<Sender>) -> Shutdown {
    let shutdown = Shutdown::new();
    world.users.delayed().start(sender.clone(), &shutdown).unwrap();
    shutdown
}

/// Waits until the timer has done what is due.
async fn settled(world: &World) {
    let delayed = world.users.delayed();
    delayed.news.notify_one();
    let rest = async {
        while delayed
            .index
            .lock()
            .next()
            .is_some_and(|(due, _)| due <= world.clock.now_ms())
        {
            tokio::task::yield_now().await;
        }
    };
    let rest = async {
        rest.await;
        let all = u32::try_from(SENT_AT_ONCE_MAX).unwrap();
        drop(delayed.places.acquire_many(all).await.unwrap());
    };
    let bound = std::time::Duration::from_secs(60);
    tokio::time::timeout(bound, rest)
        .await
        .expect("the timer comes to rest");
    // What it did last is on the disk when an operation that changes nothing is through.
    let alice = world.users.get(crate::tests::alice_id()).unwrap().unwrap();
    alice.delayed_of_txn("none").await.unwrap();
}

#[tokio::test]
async fn events_are_sent_in_the_order_in_which_they_are_due_also_after_a_restart() {
    let world = World::new();
    let alice = world.alice().await;
    for (kind, delay) in [
        ("third", 3000),
        ("first", 1000),
        ("second", 2000),
        ("later", 60_000),
    ] {
        scheduled(&alice, new(kind, delay)).await;
    }
    let kinds: Vec<_> = alice
        .delayed_events()
        .unwrap()
        .into_iter()
        .map(|event| event.kind)
        .collect();
    assert_eq!(kinds, ["first", "second", "third", "later"]);
    let world = world.restarted(2);
    world.clock.advance(5000);
    let sender = Arc::new(Sender::default());
    let shutdown = started(&world, &sender);
    settled(&world).await;
    assert_eq!(*sender.sent.lock(), ["first", "second", "third"]);
    let alice = world.users.get(crate::tests::alice_id()).unwrap().unwrap();
    assert_eq!(alice.delayed_events().unwrap().len(), 1);
    shutdown.trigger();
}

#[tokio::test]
async fn a_transaction_schedules_once_and_a_user_only_so_many() {
    let world = World::new();
    let alice = world.alice().await;
    let with_txn = || NewDelayedEvent {
        txn: Some("t".to_owned()),
        ..new("a", 5000)
    };
    let id = scheduled(&alice, with_txn()).await;
    assert_eq!(scheduled(&alice, with_txn()).await, id);
    assert_eq!(alice.delayed_of_txn("t").await.unwrap(), Some(id.clone()));
    assert_eq!(alice.delayed_of_txn("u").await.unwrap(), None);
    world.clock.advance(1000);
    assert_eq!(
        alice.delay_event(new("b", 9000), 1).await.unwrap(),
        Delay::TooMany(4000)
    );
    let event = alice.delayed_event(&id).unwrap().unwrap();
    assert_eq!(event.content.get(), r#"{"b":1,"a":2}"#, "kept as it came");
}

#[tokio::test]
async fn what_was_done_is_known_and_cannot_be_done_otherwise() {
    let world = World::new();
    let alice = world.alice().await;
    let sender = Arc::new(Sender::default());
    let shutdown = started(&world, &sender);
    let delayed = world.users.delayed();
    let (sent, cancelled) = (
        scheduled(&alice, new("a", 9000)).await,
        scheduled(&alice, new("b", 9000)).await,
    );
    assert_eq!(delayed.send(&sent).await.unwrap(), Managed::Done);
    assert_eq!(delayed.cancel(&cancelled).await.unwrap(), Managed::Done);
    for (id, send, cancel) in [
        (&sent, Managed::Done, Managed::Conflict),
        (&cancelled, Managed::Conflict, Managed::Done),
        (&"unknown".to_owned(), Managed::Unknown, Managed::Unknown),
    ] {
        assert_eq!(delayed.send(id).await.unwrap(), send, "{id}");
        assert_eq!(delayed.cancel(id).await.unwrap(), cancel, "{id}");
        assert_ne!(delayed.restart(id).await.unwrap(), Managed::Done, "{id}");
    }
    let done = alice.delayed_event(&sent).unwrap().unwrap().done.unwrap();
    assert_eq!(done.event_id.as_deref(), Some(event_id!("$sent:example.org")));
    assert_eq!(*sender.sent.lock(), ["a"]);
    shutdown.trigger();
}

#[tokio::test]
async fn a_restarted_event_waits_the_whole_time_again() {
    let world = World::new();
    let alice = world.alice().await;
    let sender = Arc::new(Sender::default());
    let shutdown = started(&world, &sender);
    let id = scheduled(&alice, new("a", 1000)).await;
    world.clock.advance(900);
    assert_eq!(world.users.delayed().restart(&id).await.unwrap(), Managed::Done);
    world.clock.advance(900);
    settled(&world).await;
    assert!(sender.sent.lock().is_empty());
    world.clock.advance(100);
    settled(&world).await;
    assert_eq!(*sender.sent.lock(), ["a"]);
    shutdown.trigger();
}

#[tokio::test]
async fn a_refusal_ends_the_wait_and_a_fault_of_the_server_does_not() {
    let world = World::new();
    let alice = world.alice().await;
    let sender = Arc::new(Sender::default());
    let shutdown = started(&world, &sender);
    let id = scheduled(&alice, new("a", 1000)).await;
    *sender.refusal.lock() = Some(MatrixError::forbidden("no"));
    let refused = world.users.delayed().send(&id).await.unwrap();
    assert!(matches!(refused, Managed::Refused(error) if error.status == 403));
    assert!(
        alice.delayed_event(&id).unwrap().unwrap().done.is_none(),
        "sent by hand, it goes on waiting"
    );
    *sender.refusal.lock() = Some(MatrixError::internal("broken"));
    world.clock.advance(1000);
    settled(&world).await;
    assert!(alice.delayed_event(&id).unwrap().unwrap().done.is_none());
    *sender.refusal.lock() = Some(MatrixError::forbidden("no"));
    world.clock.advance(30_000);
    settled(&world).await;
    let done = alice.delayed_event(&id).unwrap().unwrap().done.unwrap();
    assert_eq!(done.error.unwrap()["errcode"], "M_FORBIDDEN");
    shutdown.trigger();
}

#[tokio::test]
async fn what_was_done_long_ago_is_forgotten() {
    let world = World::new();
    let alice = world.alice().await;
    let delayed = world.users.delayed();
    let old = scheduled(&alice, new("a", 1000)).await;
    delayed.cancel(&old).await.unwrap();
    world.clock.advance(DONE_KEPT_MS + 1);
    let young = scheduled(&alice, new("b", 1000)).await;
    delayed.cancel(&young).await.unwrap();
    assert!(alice.delayed_event(&old).unwrap().is_none());
    assert!(alice.delayed_event(&young).unwrap().is_some());
    assert!(
        delayed.index.lock().prune(alice.key(), 0, 0).contains(&young),
        "the count is a limit too"
    );
}

/// Never comes back for events of one kind.
struct Stuck(Sender);

#[async_trait]
impl DelayedSender for Stuck {
    async fn send(&self, event: &DelayedEvent) -> std::result::Result<OwnedEventId, Box<MatrixError>> {
        if event.kind == "stuck" {
            std::future::pending::<()>().await;
        }
        self.0.send(event).await
    }
}

#[tokio::test]
async fn one_that_waits_for_another_server_holds_up_no_other() {
    let world = World::new();
    let alice = world.alice().await;
    scheduled(&alice, new("stuck", 1000)).await;
    scheduled(&alice, new("fine", 2000)).await;
    world.clock.advance(5000);
    let stuck = Arc::new(Stuck(Sender::default()));
    let shutdown = Shutdown::new();
    world.users.delayed().start(stuck.clone(), &shutdown).unwrap();
    let sent = async {
        while stuck.0.sent.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let bound = std::time::Duration::from_secs(60);
    tokio::time::timeout(bound, sent)
        .await
        .expect("the other is sent");
    assert_eq!(*stuck.0.sent.lock(), ["fine"]);
    shutdown.trigger();
}

#[tokio::test]
async fn many_of_one_user_hold_up_those_of_no_other() {
    let world = World::new();
    let alice = world.alice().await;
    let bob = ruma::user_id!("@bob:example.org");
    let bob = world
        .users
        .create(bob, crate::NewAccount::default())
        .await
        .unwrap();
    for _ in 0..SENT_AT_ONCE_MAX + 10 {
        alice.delay_event(new("stuck", 1000), 100).await.unwrap();
    }
    scheduled(&bob, new("fine", 2000)).await;
    world.clock.advance(5000);
    let stuck = Arc::new(Stuck(Sender::default()));
    let shutdown = Shutdown::new();
    world.users.delayed().start(stuck.clone(), &shutdown).unwrap();
    let sent = async {
        while stuck.0.sent.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let bound = std::time::Duration::from_secs(60);
    tokio::time::timeout(bound, sent).await.expect("bob's is sent");
    assert_eq!(*stuck.0.sent.lock(), ["fine"]);
    shutdown.trigger();
}

#[tokio::test]
async fn a_full_bucket_is_no_refusal() {
    let world = World::new();
    let alice = world.alice().await;
    let id = scheduled(&alice, new("a", 1000)).await;
    let sender = Arc::new(Sender::default());
    *sender.refusal.lock() = Some(MatrixError::limit_exceeded(5));
    let shutdown = started(&world, &sender);
    world.clock.advance(2000);
    settled(&world).await;
    assert_eq!(alice.delayed_event(&id).unwrap().unwrap().done, None);
    *sender.refusal.lock() = None;
    world.clock.advance(60_000);
    settled(&world).await;
    assert_eq!(*sender.sent.lock(), ["a"]);
    shutdown.trigger();
}

#[tokio::test]
async fn one_that_was_never_stored_is_forgotten() {
    let world = World::new();
    let alice = world.alice().await;
    let id = scheduled(&alice, new("a", 1000)).await;
    let delayed = world.users.delayed();
    let ghost = DelayedEvent {
        delay_id: "ghost".to_owned(),
        ..delayed.get(&id).unwrap().unwrap()
    };
    delayed.index.lock().put(alice.key, &ghost);
    let sender = Arc::new(Sender::default());
    let shutdown = started(&world, &sender);
    world.clock.advance(2000);
    settled(&world).await;
    assert_eq!(*sender.sent.lock(), ["a"]);
    assert_eq!(delayed.index.lock().user_of("ghost"), None);
    shutdown.trigger();
}

#[tokio::test]
async fn one_that_cannot_be_read_is_forgotten() {
    let world = World::new();
    let alice = world.alice().await;
    let bad = scheduled(&alice, new("a", 1000)).await;
    scheduled(&alice, new("b", 2000)).await;
    let sender = Arc::new(Sender::default());
    let shutdown = started(&world, &sender);
    let delayed = world.users.delayed();
    let mut batch = hearth_storage::Batch::new();
    batch.put(Family::DelayedEvent, keys::delayed_event(alice.key, &bad), [9]);
    delayed.log.engine().write(&batch, true).unwrap();
    world.clock.advance(3000);
    settled(&world).await;
    assert_eq!(*sender.sent.lock(), ["b"]);
    assert_eq!(
        delayed.index.lock().user_of(&bad),
        None,
        "it is not tried for ever"
    );
    shutdown.trigger();
}
