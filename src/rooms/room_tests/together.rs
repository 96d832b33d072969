//! Sends that are done together.

use futures::FutureExt;
use futures::future::join_all;

use super::*;
use crate::together::ROUND;

/// As many as two rounds and a rest, all ready at once on one thread.
#[tokio::test]
async fn each_send_of_a_round_has_its_own_answer() {
    let world = World::new(2).await;
    let (room, other) = (world.room().await, world.room().await);
    let before = timeline(&room).len();
    let sends = (0..2 * ROUND + 3).map(|number| {
        let room = if number % 3 == 0 { &other } else { &room };
        let text = number.to_string();
        async move {
            match number % 3 {
                // Carol is in neither room.
                1 => {
                    let refused = room.send(self::text("carol", &text), None).await;
                    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
                }
                _ => {
                    let sent = room.send(self::text("alice", &text), None).await.expect("sent");
                    let event = room.event_by_id(&sent.event_id).expect("a look-up");
                    let content = event.expect("it is stored").pdu.content().to_vec();
                    assert_eq!(content, json!({ "body": text }).to_string().into_bytes());
                }
            }
        }
    });
    join_all(sends).await;
    let accepted = (0..2 * ROUND + 3).filter(|number| number % 3 == 2).count();
    assert_eq!(timeline(&room).len(), before + accepted);
}

#[tokio::test]
async fn a_transaction_that_comes_twice_in_a_round_is_one_event() {
    let world = World::new(1).await;
    let room = world.room().await;
    let sends = (0..4).map(|_| room.send(text("alice", "x"), Some(txn("1"))));
    let sent: Vec<_> = join_all(sends)
        .await
        .into_iter()
        .map(|sent| sent.expect("sent"))
        .collect();
    assert!(sent.iter().all(|one| one.event_id == sent[0].event_id));
}

/// The first of a round is who does the work where nobody else comes; the others must not wait for it in vain.
#[tokio::test]
async fn whoever_begins_a_round_may_go_away() {
    let world = World::new(1).await;
    let room = world.room().await;
    let mut first = Box::pin(room.send(text("alice", "first"), None));
    let mut second = Box::pin(room.send(text("bob", "second"), None));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    let before = timeline(&room).len();
    drop(first);
    second.await.expect("sent");
    let bodies: Vec<_> = timeline(&room)[before..]
        .iter()
        .map(|event| event.pdu.content().to_vec())
        .collect();
    assert_eq!(
        bodies,
        [br#"{"body":"first"}"#.to_vec(), br#"{"body":"second"}"#.to_vec()]
    );
}
