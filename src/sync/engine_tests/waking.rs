//! What wakes a sync that waits, and what is kept in memory for it.

use super::*;

#[tokio::test]
async fn a_waiting_sync_is_woken_by_a_message_and_by_nothing_else() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    let other = world.room(&bob, Preset::PublicChat).await;
    join(&room, &bob).await;
    let first = world.sync(&request(&alice)).await;
    let waits = request(&alice).since(&first).wait(20_000);
    let waiting = world.sync(&waits);
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(30), &mut waiting).await;
    assert!(early.is_err(), "it waits");
    say(&other, &bob, "elsewhere").await;
    let early = tokio::time::timeout(Duration::from_millis(30), &mut waiting).await;
    assert!(early.is_err(), "other rooms do not concern it");
    say(&room, &bob, "here").await;
    let answer = tokio::time::timeout(Duration::from_secs(5), &mut waiting)
        .await
        .unwrap();
    assert_eq!(bodies(&answer, "join", &room), ["here"]);
    let late = world.sync(&request(&alice).since(&answer).wait(60)).await;
    assert!(late.get("rooms").is_none());
}

#[tokio::test]
async fn a_shutdown_ends_waiting() {
    let world = World::new(1);
    let alice = world.user("alice").await;
    let first = world.sync(&request(&alice)).await;
    let waits = request(&alice).since(&first).wait(60_000);
    let waiting = world.sync(&waits);
    tokio::pin!(waiting);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), &mut waiting)
            .await
            .is_err()
    );
    world.shutdown.trigger();
    tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .unwrap();
}

#[tokio::test]
async fn rooms_outside_the_filter_do_not_wake() {
    let world = World::new(16);
    let alice = world.user("alice").await;
    let (one, two) = (
        world.room(&alice, Preset::PublicChat).await,
        world.room(&alice, Preset::PublicChat).await,
    );
    let only = json!({ "room": { "rooms": [one.id()] } });
    let first = world.sync(&request(&alice).filter(only.clone())).await;
    assert_eq!(first["rooms"]["join"].as_object().unwrap().len(), 1);
    say(&two, &alice, "not wanted").await;
    let second = world.sync(&request(&alice).since(&first).filter(only)).await;
    assert!(second.get("rooms").is_none());
}

#[tokio::test]
async fn idle_indexes_are_dropped_and_built_again() {
    let world = World::new(4);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let first = world.sync(&request(&alice)).await;
    assert_eq!(world.sync.notifier.sizes(), (1, 1));
    world.sync.notifier.drop_idle();
    assert_eq!(world.sync.notifier.sizes(), (1, 1));
    world.clock.advance(6 * 60 * 1000);
    world.sync.notifier.drop_idle();
    assert_eq!(world.sync.notifier.sizes(), (0, 0));
    say(&room, &bob, "meanwhile").await;
    let second = world.sync(&request(&alice).since(&first)).await;
    assert_eq!(bodies(&second, "join", &room), ["meanwhile"]);
}
