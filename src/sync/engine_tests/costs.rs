//! What syncs cost, to be read by a person.

use super::*;

/// Not a check of time, which a busy machine would fail: prints what a sync costs.
#[tokio::test]
#[ignore = "prints costs; run it by hand"]
async fn costs() {
    let world = World::new(16);
    let alice = world.user("alice").await;
    let mut rooms = Vec::new();
    let cpu = |began: std::time::Instant, count: u32| began.elapsed() / count;
    for target in [10, 300, 5000] {
        while rooms.len() < target {
            rooms.push(world.room(&alice, Preset::PublicChat).await);
        }
        let began = std::time::Instant::now();
        let first = world.sync(&request(&alice)).await;
        println!("{target} rooms: initial {:?}", began.elapsed());
        let next = request(&alice).since(&first);
        let began = std::time::Instant::now();
        for _ in 0..2000 {
            let mut view = world.sync.sync(&next).await.unwrap();
            v3::render(&next, &mut view).unwrap();
        }
        println!("{target} rooms: idle {:?}", cpu(began, 2000));
    }
    let room = &rooms[0];
    let mut readers = Vec::new();
    for number in 0..200 {
        let user = world.user(&format!("reader{number}")).await;
        join(room, &user).await;
        readers.push(user);
    }
    for _ in 0..500 {
        say(room, &alice, "history").await;
    }
    let mut tokens = Vec::new();
    for user in &readers {
        let answer = world.sync(&request(user)).await;
        tokens.push(request(user).since(&answer));
    }
    for round in 0..3 {
        let began = std::time::Instant::now();
        for next in &tokens {
            let mut view = world.sync.sync(next).await.unwrap();
            v3::render(next, &mut view).unwrap();
        }
        println!("round {round}: a sync of 200 without news {:?}", cpu(began, 200));
        let began = std::time::Instant::now();
        say(room, &alice, "to all").await;
        println!("round {round}: send {:?}", began.elapsed());
        let began = std::time::Instant::now();
        let mut views = Vec::new();
        for next in &tokens {
            views.push(world.sync.sync(next).await.unwrap());
        }
        println!("round {round}: look {:?}", cpu(began, 200));
        let began = std::time::Instant::now();
        for (next, view) in tokens.iter_mut().zip(&mut views) {
            let text = v3::render(next, view).unwrap();
            assert!(text.contains("to all"));
            next.since = Some(view.next.clone());
        }
        println!("round {round}: render {:?}", cpu(began, 200));
    }
}
