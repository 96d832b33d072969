//! Sliding sync on the engine: what it reads, what it stores, what it costs.

use std::time::Instant;

use super::*;
use crate::sliding::{
    Answer, Body, Extensions, List, ListFilter, Request, RequiredState, RoomConfig, Scope, StatePattern,
    StateRule, Wire, render,
};

pub(super) fn windows(user: &User, last: u64) -> Request {
    let list = List {
        ranges: Some(vec![(0, last)]),
        config: RoomConfig {
            timeline_limit: 1,
            required_state: RequiredState::of(StateRule::default()),
        },
        filter: ListFilter {
            not_room_types: Some(vec![Some("m.space".to_owned())]),
            ..ListFilter::default()
        },
    };
    Request {
        user: user.clone(),
        device: None,
        conn_id: "room-list".to_owned(),
        pos: None,
        timeout: Duration::ZERO,
        set_presence: PresenceState::Offline,
        lists: [("all".to_owned(), list)].into(),
        subscriptions: Default::default(),
        extensions: Extensions {
            account_data: Some(Scope::default()),
            receipts: Some(Scope::default()),
            typing: Some(Scope::default()),
            ..Extensions::default()
        },
        with_unread: true,
        events_max: usize::MAX,
    }
}

impl World {
    /// Asks, and goes on from the answer next time.
    pub(super) async fn slide(&self, request: &mut Request) -> Answer {
        let mut answer = self.sync.sliding_sync(request).await.unwrap();
        render(Wire::Unstable, None, &mut answer).unwrap();
        request.pos = Some(answer.pos.to_string());
        answer
    }
}

#[tokio::test]
async fn a_connection_is_stored_in_time_and_when_the_server_stops() {
    let world = World::new(1);
    let alice = world.user("alice").await;
    let room = world.room(&alice, Preset::PublicChat).await;
    let mut request = windows(&alice, 19);
    assert_eq!(world.slide(&mut request).await.rooms.len(), 1);
    let parts = || alice.connection_parts("", "room-list").unwrap().len();
    assert_ne!(parts(), 0, "a room was shown");
    world.slide(&mut request).await;
    say(&room, &alice, "stored").await;
    assert_eq!(world.slide(&mut request).await.rooms.len(), 1);
    world.sync.close().await;
    let world = world.restarted();
    let mut request = Request {
        user: world.users.get(alice.id()).unwrap().unwrap(),
        ..request
    };
    assert!(world.slide(&mut request).await.rooms.is_empty());
    // What was sent after it was stored last comes again after a crash, from a connection that goes on.
    let again = world.rooms.get(room.id()).unwrap().unwrap();
    say(&again, &request.user, "twice").await;
    assert_eq!(world.slide(&mut request).await.rooms.len(), 1);
    assert!(world.slide(&mut request).await.rooms.is_empty());
    let world = world.restarted();
    request.user = world.users.get(alice.id()).unwrap().unwrap();
    let answer = world.slide(&mut request).await;
    assert!(answer.rooms.len() <= 1 && answer.rooms.iter().all(|room| !room.initial));
}

#[tokio::test]
async fn after_a_crash_rooms_go_on_where_the_client_has_them() {
    let world = World::new(1);
    let alice = world.user("alice").await;
    let room = world.room(&alice, Preset::PublicChat).await;
    let mut request = windows(&alice, 19);
    assert!(world.slide(&mut request).await.rooms[0].initial);
    // Nobody knows whether the answer arrived; whoever has its position has it.
    let world = world.restarted();
    request.user = world.users.get(alice.id()).unwrap().unwrap();
    let again = world.rooms.get(room.id()).unwrap().unwrap();
    say(&again, &request.user, "goes on").await;
    let answer = world.slide(&mut request).await;
    assert_eq!(answer.rooms.len(), 1);
    assert!(!answer.rooms[0].initial, "shown anew");
}

/// What was said before the last answer is not live in a room that is joined after it, also where the connection was let go
/// of in between and its position says nothing of the room's shard.
#[tokio::test]
async fn old_events_are_not_live_after_a_pause() {
    let world = World::new(16);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    world.room(&alice, Preset::PublicChat).await;
    let mut rooms = Vec::new();
    for _ in 0..20 {
        let room = world.room(&bob, Preset::PublicChat).await;
        say(&room, &bob, "old").await;
        rooms.push(room);
    }
    let mut request = windows(&alice, 99);
    for list in request.lists.values_mut() {
        list.config.timeline_limit = 20;
    }
    world.slide(&mut request).await;
    world.slide(&mut request).await;
    world.clock.advance(11 * 60 * 1_000);
    world.sync.connections.sweep().await;
    for room in &rooms {
        join(room, &alice).await;
    }
    let answer = world.slide(&mut request).await;
    assert_eq!(answer.rooms.len(), rooms.len());
    for news in &answer.rooms {
        let Body::Full(full) = &news.body else {
            panic!("the room is joined")
        };
        assert!(full.timeline.events.len() > 2);
        assert_eq!(full.live, 1, "the join alone");
    }
}

#[tokio::test]
async fn a_wake_looks_at_what_changed() {
    let world = World::new(4);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut rooms = Vec::new();
    for _ in 0..30 {
        let room = world.room(&alice, Preset::PublicChat).await;
        join(&room, &bob).await;
        rooms.push(room);
    }
    let mut request = windows(&bob, 99);
    assert_eq!(world.slide(&mut request).await.rooms.len(), 30);
    world.slide(&mut request).await;
    for at in [3, 17] {
        say(&rooms[at], &alice, "news").await;
        let answer = world.slide(&mut request).await;
        assert_eq!(answer.rooms.len(), 1);
        assert_eq!(answer.rooms[0].room_id, rooms[at].id());
    }
    // Typing, receipts and tags come beside the rooms.
    rooms[5].set_typing(alice.id(), Some(30_000));
    let answer = world.slide(&mut request).await;
    assert!(answer.rooms.is_empty());
    assert_eq!(
        answer.extensions.typing.keys().collect::<Vec<_>>(),
        [rooms[5].id()]
    );
    bob.set_tag(rooms[6].id(), "u.x", Map::new()).await.unwrap();
    let answer = world.slide(&mut request).await;
    assert_eq!(answer.extensions.data.keys().collect::<Vec<_>>(), [rooms[6].id()]);
}

/// What an answer costs: `cargo test -p hearth-sync sliding::costs -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "prints costs; run it by hand"]
async fn costs() {
    let world = World::new(16);
    let mut accounts = Vec::new();
    for target in [10, 1_000, 10_000] {
        let user = world.user(&format!("user{target}")).await;
        let mut rooms = Vec::new();
        for _ in 0..target {
            rooms.push(world.room(&user, Preset::PublicChat).await);
        }
        let began = Instant::now();
        world.slide(&mut windows(&user, 19)).await;
        println!("{target} rooms: first window of 20 {:?}", began.elapsed());
        let began = Instant::now();
        for _ in 0..20 {
            world.slide(&mut windows(&user, 19)).await;
        }
        println!("{target} rooms: window of 20, warm {:?}", began.elapsed() / 20);
        let mut request = windows(&user, 99_999);
        let began = Instant::now();
        world.slide(&mut request).await;
        println!("{target} rooms: all rooms {:?}", began.elapsed());
        world.slide(&mut request).await;
        accounts.push((target, user, rooms, request));
    }
    for round in 0..5 {
        for (target, user, rooms, request) in &mut accounts {
            let began = Instant::now();
            for _ in 0..500 {
                world.slide(request).await;
            }
            let idle = began.elapsed() / 500;
            let mut spent = Duration::ZERO;
            for number in 0..500 {
                say(&rooms[number % 3], user, "news").await;
                let began = Instant::now();
                assert_eq!(world.slide(request).await.rooms.len(), 1);
                spent += began.elapsed();
            }
            println!(
                "round {round}, {target} rooms: idle {idle:?}, one active {:?}",
                spent / 500
            );
        }
    }
}

/// An answer that would be too large is not made, and the connection goes on all the same.
#[tokio::test]
async fn an_answer_has_no_more_events_than_it_may() {
    let world = World::new(1);
    let alice = world.user("alice").await;
    let room = world.room(&alice, Preset::PublicChat).await;
    for number in 0..30 {
        set(
            &room,
            &alice,
            "org.example.number",
            &number.to_string(),
            json!({}),
        )
        .await;
    }
    let mut asked = windows(&alice, 10);
    let list = asked.lists.get_mut("all").unwrap();
    let everything = StatePattern {
        kind: None,
        state_key: None,
    };
    list.config.required_state = RequiredState::of(StateRule {
        include: vec![everything],
        ..StateRule::default()
    });
    let small = Request {
        events_max: 20,
        ..asked.clone()
    };
    assert!(matches!(
        world.sync.sliding_sync(&small).await,
        Err(crate::Error::Large)
    ));
    let first = world.sync.sliding_sync(&asked).await.unwrap();
    assert_eq!(first.rooms.len(), 1);
    for number in 0..30 {
        set(
            &room,
            &alice,
            "org.example.number",
            &number.to_string(),
            json!({ "new": true }),
        )
        .await;
    }
    let pos = Some(first.pos_text);
    let small = Request {
        pos: pos.clone(),
        ..small
    };
    for _ in 0..2 {
        assert!(matches!(
            world.sync.sliding_sync(&small).await,
            Err(crate::Error::Large)
        ));
    }
    let asked = Request { pos, ..asked };
    let next = world.sync.sliding_sync(&asked).await.unwrap();
    assert_eq!(next.rooms.len(), 1);
}
