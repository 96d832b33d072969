//! The same in rooms that hide their history: who was shown what, judged by somebody who saw everything.

use std::collections::{BTreeMap, BTreeSet};

use hearth_testkit::Client;
use serde_json::Value;

use super::{USERS, World, seeds};

/// A room's history as somebody saw it who is in it from the start and never leaves.
struct History {
    events: Vec<Value>,
}

impl History {
    async fn of(watcher: &Client, room: &str) -> Self {
        let page = watcher.messages(room, "dir=f&limit=1000").await;
        let events = page["chunk"].as_array().cloned().unwrap_or_default();
        assert!(events.len() < 1000, "a room with more than one page");
        Self { events }
    }

    /// The user's membership before each event, and after the last.
    fn memberships(&self, user: &str, creator: bool) -> Vec<String> {
        let mut now = if creator { "join" } else { "leave" }.to_owned();
        let mut found = vec![now.clone()];
        for event in &self.events {
            if event["type"] == "m.room.member" && event["state_key"] == user {
                now = event["content"]["membership"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
            }
            found.push(now.clone());
        }
        found
    }

    /// The events that the user may not be shown.
    fn forbidden(&self, user: &str, creator: bool) -> BTreeSet<String> {
        let memberships = self.memberships(user, creator);
        let mut forbidden = BTreeSet::new();
        // Until a room says otherwise.
        let mut visibility = "shared";
        for (at, event) in self.events.iter().enumerate() {
            let around = &memberships[at..=at + 1];
            let was = |membership: &str| around.iter().any(|one| one == membership);
            let is_own = event["type"] == "m.room.member" && event["state_key"] == user;
            let later = memberships[at..].iter().any(|one| one == "join");
            let may = |visibility: &str| match visibility {
                "world_readable" => true,
                _ if is_own || was("join") => true,
                "invited" => later && was("invite"),
                "shared" => later,
                _ => false,
            };
            // The event that changes it is shown by what it was, or by what it is.
            let before = visibility;
            if event["type"] == "m.room.history_visibility" {
                visibility = event["content"]["history_visibility"]
                    .as_str()
                    .unwrap_or("shared");
            }
            if !may(before) && !may(visibility) {
                forbidden.insert(event["event_id"].as_str().unwrap_or_default().to_owned());
            }
        }
        forbidden
    }
}

async fn run(shards: u16, seed: u64) {
    let visibilities = ["joined", "invited", "shared"];
    let mut world = World::new(shards, seed, visibilities).await;
    let watched: Vec<String> = world.rooms.clone();
    let server = world.server.as_ref().expect("a server");
    let watcher = server.register("watcher").await;
    for room in &watched {
        watcher.join(room).await;
    }
    world.watcher = Some(watcher);
    for half in 0..2 {
        for _ in 0..80 {
            world.act().await;
        }
        let when = format!("seed {seed}, {shards} shards, hidden, half {half}");
        world.check(&when).await;
        world.nobody_saw_more(&watched, visibilities, &when).await;
        if half == 0 {
            world.crash().await;
            let endpoint = world.server.as_ref().expect("a server").endpoint();
            world.watcher = world.watcher.as_ref().map(|watcher| watcher.on(endpoint));
        }
    }
}

impl World {
    async fn nobody_saw_more(&self, rooms: &[String], visibilities: [&'static str; 3], when: &str) {
        let mut seen: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
        for follower in &self.followers {
            let of_user = seen.entry(follower.client.user_id.clone()).or_default();
            of_user.extend(follower.model.seen.iter().cloned());
        }
        for follower in self.sliding.iter().chain(&self.merged) {
            let of_user = seen.entry(follower.client.user_id.clone()).or_default();
            of_user.extend(follower.seen.iter().cloned());
        }
        assert_eq!(seen.len(), USERS.len());
        let watcher = self.watcher.as_ref().expect("somebody who sees everything");
        for (at, (room, visibility)) in rooms.iter().zip(visibilities).enumerate() {
            let history = History::of(watcher, room).await;
            for user in &self.users {
                let creator = self.users[at].user_id == user.user_id;
                let forbidden = history.forbidden(&user.user_id, creator);
                let shown = seen[&user.user_id].iter();
                let shown = shown.filter(|(in_room, event)| in_room == room && forbidden.contains(event));
                let shown: Vec<_> = shown.collect();
                assert!(
                    shown.is_empty(),
                    "{when}: {} was shown {shown:?} of a room with visibility {visibility}: {:#?}",
                    user.user_id,
                    history.events
                );
            }
        }
    }
}

#[tokio::test]
async fn nobody_is_shown_what_is_hidden_on_1_shard() {
    for seed in seeds() {
        run(1, seed).await;
    }
}

#[tokio::test]
async fn nobody_is_shown_what_is_hidden_on_16_shards() {
    for seed in seeds() {
        run(16, seed + 1_000_000).await;
    }
}
