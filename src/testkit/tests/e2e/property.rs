//! Several users do anything at random while clients follow; at the end each sees what a fresh client sees, also when
//! the server crashed in the middle.

use hearth_testkit::{Client, Follower, TestServer, encode};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const LAZY: &str = "filter=%7B%22room%22%3A%7B%22state%22%3A%7B%22lazy_load_members%22%3Atrue%7D%7D%7D";

/// Users who act, clients who follow, and what was acknowledged.
struct World {
    server: Option<TestServer>,
    users: Vec<Client>,
    followers: Vec<Follower>,
    rooms: Vec<String>,
    acknowledged: Vec<(usize, usize, String)>,
    random: ChaCha8Rng,
}

impl World {
    async fn new(shards: u16, seed: u64) -> Self {
        let server = TestServer::memory(shards).await;
        let (mut users, mut followers) = (Vec::new(), Vec::new());
        for name in USERS {
            users.push(server.register(name).await);
            for (device, query) in [("PLAIN", ""), ("AFTER", "use_state_after=true"), ("LAZY", LAZY)] {
                followers.push(Follower::new(server.login(name, device).await, query));
            }
        }
        let mut rooms = Vec::new();
        for user in &users {
            rooms.push(user.room().visibility("shared").build().await);
        }
        Self {
            server: Some(server),
            users,
            followers,
            rooms,
            acknowledged: Vec::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    /// Does something; refusals are fine.
    async fn act(&mut self) {
        let (at, in_room, kind) = (
            self.below(USERS.len()),
            self.below(self.rooms.len()),
            self.below(22),
        );
        let (number, other) = (self.below(5), self.below(USERS.len()));
        let room = self.rooms[in_room].clone();
        let user = &self.users[at];
        let about = json!({ "user_id": self.users[other].user_id });
        let path = |rest: &str| format!("/rooms/{}/{rest}", encode(&room));
        let data = format!("/user/{}", encode(&user.user_id));
        let answer = match kind {
            0..=6 => {
                let answer = user
                    .send_txn(
                        &room,
                        "m.room.message",
                        &user.txn(),
                        json!({ "body": number.to_string() }),
                    )
                    .await;
                if answer.status == 200 {
                    let id = answer.json()["event_id"].as_str().unwrap_or_default().to_owned();
                    self.acknowledged.push((at, in_room, id));
                }
                answer
            }
            7 => {
                user.try_set_state(&room, "m.room.topic", "", json!({ "topic": number.to_string() }))
                    .await
            }
            8 => {
                user.try_set_state(
                    &room,
                    "org.example.s",
                    &number.to_string(),
                    json!({ "v": number }),
                )
                .await
            }
            9 | 10 => user.act(&room, "join", json!({})).await,
            11 => user.act(&room, "leave", json!({})).await,
            12 => user.act(&room, "invite", about).await,
            13 => user.act(&room, "kick", about).await,
            14 => {
                user.act(&room, if number < 3 { "unban" } else { "ban" }, about)
                    .await
            }
            15 => {
                let known: Vec<_> = self
                    .acknowledged
                    .iter()
                    .filter(|(_, place, _)| *place == in_room)
                    .collect();
                let Some((_, _, id)) = known.last() else { return };
                user.try_redact(&room, id).await
            }
            16 => {
                let known: Vec<_> = self
                    .acknowledged
                    .iter()
                    .filter(|(_, place, _)| *place == in_room)
                    .collect();
                let Some((_, _, id)) = known.last() else { return };
                let kind = if number < 3 { "m.read" } else { "m.read.private" };
                user.post(&path(&format!("receipt/{kind}/{}", encode(id))), json!({}))
                    .await
            }
            17 => {
                user.put(
                    &format!("{data}/rooms/{}/tags/u.{number}", encode(&room)),
                    json!({}),
                )
                .await
            }
            18 => {
                user.put(
                    &format!("{data}/account_data/org.example.{number}"),
                    json!({ "v": other }),
                )
                .await
            }
            19 => {
                user.put(
                    &path(&format!("typing/{}", encode(&user.user_id))),
                    json!({ "typing": number < 3, "timeout": 60000 }),
                )
                .await
            }
            20 => {
                user.put(
                    &format!("/profile/{}/displayname", encode(&user.user_id)),
                    json!({ "displayname": number.to_string() }),
                )
                .await
            }
            _ if number == 0 && self.rooms.len() < 6 => {
                let id = user
                    .room()
                    .set("invite", json!([self.users[other].user_id]))
                    .preset("private_chat")
                    .build()
                    .await;
                self.rooms.push(id);
                return;
            }
            _ => user.act(&room, "forget", json!({})).await,
        };
        assert!(
            answer.status == 200 || (400..500).contains(&answer.status),
            "{}: {}",
            answer.asked,
            answer.text()
        );
    }

    /// Lets some followers take the news.
    async fn follow(&mut self) {
        for at in 0..self.followers.len() {
            if self.below(4) == 0 {
                self.followers[at].pull().await;
            }
        }
    }

    async fn check(&mut self, when: &str) {
        for follower in &mut self.followers {
            follower.check(when).await;
        }
        // Every acknowledged message is there, once, in the order in which it was acknowledged.
        for (number, room) in self.rooms.iter().enumerate() {
            let Some(reader) = joined(&self.users, room).await else {
                continue;
            };
            let page = reader.messages(room, "dir=f&limit=1000").await;
            let seen = crate::ids(&page["chunk"]);
            let expected: Vec<_> = self
                .acknowledged
                .iter()
                .filter(|(_, place, _)| *place == number)
                .map(|(_, _, id)| id.clone())
                .collect();
            let found: Vec<_> = seen.into_iter().filter(|id| expected.contains(id)).collect();
            assert_eq!(found, expected, "{when}: {room}");
        }
    }

    async fn crash(&mut self) {
        let Some(server) = self.server.take() else { return };
        let server = server.crash().await;
        let endpoint = server.endpoint();
        self.users = self.users.iter().map(|user| user.on(endpoint.clone())).collect();
        self.followers = self
            .followers
            .drain(..)
            .map(|follower| follower.on(endpoint.clone()))
            .collect();
        // Who types lives in memory only, and presence too.
        for follower in &mut self.followers {
            for room in follower.model.joined.values_mut() {
                room.typing.clear();
            }
        }
        self.server = Some(server);
    }
}

async fn joined<'a>(users: &'a [Client], room: &str) -> Option<&'a Client> {
    for user in users {
        let rooms = user.get("/joined_rooms").await.ok();
        if rooms["joined_rooms"]
            .as_array()
            .is_some_and(|list| list.iter().any(|id| id == room))
        {
            return Some(user);
        }
    }
    None
}

async fn run(shards: u16, seed: u64) {
    let mut world = World::new(shards, seed).await;
    for half in 0..2 {
        for _ in 0..120 {
            world.act().await;
            world.follow().await;
        }
        world
            .check(&format!("seed {seed}, {shards} shards, half {half}"))
            .await;
        if half == 0 {
            for _ in 0..20 {
                world.act().await;
            }
            world.crash().await;
        }
    }
}

#[tokio::test]
async fn followers_see_what_fresh_clients_see_on_1_shard() {
    for seed in 0..3 {
        run(1, seed).await;
    }
}

#[tokio::test]
async fn followers_see_what_fresh_clients_see_on_16_shards() {
    for seed in 100..103 {
        run(16, seed).await;
    }
}
