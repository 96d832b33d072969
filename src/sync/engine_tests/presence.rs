//! Who hears of whose presence.

use std::collections::BTreeSet;

use ruma::DeviceId;

use super::*;

/// Whose presence an answer tells, with the states.
fn told(answer: &Value) -> BTreeSet<String> {
    let events = answer["presence"]["events"].as_array();
    let word = |event: &Value| {
        let name = event["sender"].as_str().unwrap_or_default();
        let name = name.trim_start_matches('@').split(':').next().unwrap_or_default();
        format!(
            "{name} {}",
            event["content"]["presence"].as_str().unwrap_or_default()
        )
    };
    events.into_iter().flatten().map(word).collect()
}

fn words(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn be(user: &User, state: PresenceState) {
    user.set_presence(<&DeviceId>::from("D"), state, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn presence_goes_to_those_who_share_a_room() {
    let world = World::new(4);
    let (alice, bob, carol) = (
        world.user("alice").await,
        world.user("bob").await,
        world.user("carol").await,
    );
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let first = world.sync(&request(&alice)).await;
    let device = ruma::device_id!("D");
    carol
        .set_presence(device, PresenceState::Online, None)
        .await
        .unwrap();
    bob.set_presence(device, PresenceState::Busy, Some(Some("working".to_owned())))
        .await
        .unwrap();
    let second = world.sync(&request(&alice).since(&first).wait(1000)).await;
    let events = second["presence"]["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{second}");
    assert_eq!(events[0]["sender"], bob.id().as_str());
    assert_eq!(events[0]["content"]["presence"], "busy");
    assert_eq!(events[0]["content"]["status_msg"], "working");
    join(&room, &carol).await;
    let third = world.sync(&request(&alice).since(&second)).await;
    assert_eq!(
        third["presence"]["events"][0]["sender"],
        carol.id().as_str(),
        "she came in: {third}"
    );
}

#[tokio::test]
async fn those_who_share_a_room_hear_of_each_other() {
    for shards in [1, 16] {
        let world = World::new(shards);
        let (alice, bob, eve) = (
            world.user("alice").await,
            world.user("bob").await,
            world.user("eve").await,
        );
        let room = world.room(&alice, Preset::PublicChat).await;
        let apart = world.room(&eve, Preset::PublicChat).await;
        join(&room, &bob).await;
        let first = world.sync(&request(&alice)).await;
        be(&bob, PresenceState::Online).await;
        be(&eve, PresenceState::Online).await;
        let second = world.sync(&request(&alice).since(&first)).await;
        assert_eq!(told(&second), words(&["bob online"]), "{shards}");
        // The same token again tells the same.
        assert_eq!(
            told(&world.sync(&request(&alice).since(&first)).await),
            words(&["bob online"])
        );
        let idle = world.sync(&request(&alice).since(&second)).await;
        assert_eq!(told(&idle), words(&[]));
        be(&bob, PresenceState::Unavailable).await;
        be(&alice, PresenceState::Online).await;
        let third = world.sync(&request(&alice).since(&idle)).await;
        assert_eq!(told(&third), words(&["alice online", "bob unavailable"]));
        // In a new room those who are there are told of, and what changes afterwards.
        join(&apart, &alice).await;
        let fourth = world.sync(&request(&alice).since(&third)).await;
        assert_eq!(told(&fourth), words(&["alice online", "eve online"]));
        be(&eve, PresenceState::Busy).await;
        let fifth = world.sync(&request(&alice).since(&fourth)).await;
        assert_eq!(told(&fifth), words(&["eve busy"]));
        // Who is out of sight is told of no more, though the change was noted before.
        be(&bob, PresenceState::Online).await;
        room.leave(bob.id(), None).await.unwrap();
        be(&eve, PresenceState::Online).await;
        let sixth = world.sync(&request(&alice).since(&fifth)).await;
        assert_eq!(told(&sixth), words(&["eve online"]));
    }
}

#[tokio::test]
async fn a_change_while_nobody_looked_is_told() {
    let world = World::new(1);
    let (alice, bob, eve) = (
        world.user("alice").await,
        world.user("bob").await,
        world.user("eve").await,
    );
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    world.room(&eve, Preset::PublicChat).await;
    be(&bob, PresenceState::Online).await;
    let first = world.sync(&request(&alice)).await;
    assert_eq!(told(&first), words(&["bob online"]));
    // The index is given up in the meantime: what changes now is noted nowhere.
    world.clock.advance(10 * 60 * 1000);
    world.sync.notifier.drop_idle();
    assert_eq!(world.sync.notifier.sizes(), (0, 0));
    be(&bob, PresenceState::Offline).await;
    be(&eve, PresenceState::Online).await;
    let second = world.sync(&request(&alice).since(&first)).await;
    assert_eq!(told(&second), words(&["bob offline"]));
    assert_eq!(
        told(&world.sync(&request(&alice).since(&second)).await),
        words(&[])
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_sync_is_woken_by_presence() {
    let world = Arc::new(World::new(4));
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, Preset::PublicChat).await;
    join(&room, &bob).await;
    let first = world.sync(&request(&alice)).await;
    let waits = request(&alice).since(&first).wait(30_000);
    let (answer, ()) = tokio::join!(world.sync(&waits), async {
        tokio::task::yield_now().await;
        be(&bob, PresenceState::Online).await;
    });
    assert_eq!(told(&answer), words(&["bob online"]));
    assert_eq!(
        told(&world.sync(&request(&alice).since(&answer)).await),
        words(&[])
    );
}
