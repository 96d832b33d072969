//! Unread counts of which not all is looked at, or told, at once. The limits are small in tests.

use std::collections::BTreeSet;

use super::*;
use crate::UnreadUser;

/// Bob, with the default rules.
async fn reader<'a>(room: &Room, bob: &'a hearth_users::User) -> UnreadUser<'a> {
    settle().await;
    let reader = room.unread_user(bob).expect("a look-up");
    reader.expect("bob is a member")
}

#[tokio::test]
async fn events_that_are_looked_at_one_by_one_are_all_counted_in_the_end() {
    let world = World::new(1).await;
    let room = world.room().await;
    room.join(&user("carol"), Map::new()).await.expect("carol joins");
    let bob = world.users.get(&user("bob")).expect("a look-up").expect("bob");
    let by_totals = reader(&room, &bob).await;
    let mut one_by_one = reader(&room, &bob).await;
    one_by_one.ignored = Arc::new(BTreeSet::from([user("carol")]));
    let mut said = Vec::new();
    for number in 0..60 {
        said.push(
            room.send(text("alice", &number.to_string()), None)
                .await
                .expect("sent"),
        );
    }
    let quiet = message("alice", json!({ "msgtype": "m.notice", "body": "quiet" }));
    room.send(quiet, None).await.expect("sent");
    room.send(text("carol", "ignored"), None).await.expect("sent");
    let count = |reader: &UnreadUser<'_>| room.unread(reader).expect("counts").total.notifications;
    assert_eq!(count(&by_totals), 61);
    let first = count(&one_by_one);
    assert!((10..=20).contains(&first), "{first}: not all at once");
    let mut last = first;
    for _ in 0..20 {
        let next = count(&one_by_one);
        assert!(
            (last..=last + 5).contains(&next),
            "{last}, {next}: a little more each time"
        );
        last = next;
    }
    assert_eq!(last, 60);
    // What is known follows what happens.
    for target in [&said[0], &said[30], &said[59]] {
        room.send(redaction("alice", &target.event_id), None)
            .await
            .expect("redacted");
    }
    room.send(text("alice", "one more"), None).await.expect("sent");
    assert_eq!((count(&one_by_one), count(&by_totals)), (58, 59));
}

#[tokio::test]
async fn threads_that_are_not_told_are_counted() {
    let world = World::new(1).await;
    let room = world.room().await;
    let bob = world.users.get(&user("bob")).expect("a look-up").expect("bob");
    let bob = reader(&room, &bob).await;
    let reply = |sender: &str, root: &ruma::EventId| {
        let relation = json!({ "rel_type": "m.thread", "event_id": root });
        message(
            sender,
            json!({ "msgtype": "m.text", "body": "reply", "m.relates_to": relation }),
        )
    };
    let mut roots = Vec::new();
    let mut replies = Vec::new();
    for number in 0..6 {
        let root = room
            .send(text("alice", &number.to_string()), None)
            .await
            .expect("sent");
        for _ in 0..2 {
            replies.push(
                room.send(reply("alice", &root.event_id), None)
                    .await
                    .expect("sent"),
            );
        }
        roots.push(root.event_id);
    }
    let counts = || {
        let unread = room.unread(&bob).expect("counts");
        let told: Vec<_> = roots.iter().map(|root| unread.threads.get(root)).collect();
        let told: Vec<u64> = told
            .into_iter()
            .map(|told| told.map_or(0, |counts| counts.notifications))
            .collect();
        (unread.total.notifications, unread.main.notifications, told)
    };
    assert_eq!(counts(), (18, 6, vec![0, 0, 2, 2, 2, 2]));
    // Bob reads a thread that was not told, by saying something there; of another one something goes.
    room.send(reply("bob", &roots[1]), None).await.expect("sent");
    assert_eq!(counts(), (16, 6, vec![0, 0, 0, 2, 2, 2]));
    room.send(redaction("alice", &replies[0].event_id), None)
        .await
        .expect("redacted");
    assert_eq!(counts(), (15, 6, vec![0, 0, 0, 2, 2, 2]));
}
