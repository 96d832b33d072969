//! The sync property: a client that follows increments sees what a fresh initial sync shows.

use std::collections::BTreeMap;

use hearth_rooms::{Preset, ReceiptKind, Room};
use hearth_users::User;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::{World, client_model::ClientModel, redaction, request, say};
use crate::{StateSide, SyncRequest, SyncToken};

const USERS: usize = 4;
const ROOMS_MAX: usize = 6;

/// How a followed client syncs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Plain,
    StateAfter,
    Lazy,
}

struct Follower {
    user: User,
    mode: Mode,
    model: ClientModel,
}

impl Follower {
    fn request(&self, limit: usize) -> SyncRequest {
        let lazy = self.mode == Mode::Lazy;
        let filter =
            json!({ "room": { "timeline": { "limit": limit }, "state": { "lazy_load_members": lazy } } });
        let mut request = request(&self.user).filter(filter);
        request.device = Some(format!("{:?}", self.mode).into());
        if self.mode == Mode::StateAfter {
            request.state = StateSide::After;
        }
        request
    }

    async fn follow(&mut self, world: &World, limit: usize) {
        let mut request = self.request(limit);
        request.since = self
            .model
            .next_batch
            .as_deref()
            .map(|token| SyncToken::parse(token).unwrap());
        let answer = world.sync(&request).await;
        self.model.apply(&answer);
    }

    async fn check(&mut self, world: &World, what: &str) {
        self.follow(world, 5).await;
        let mut fresh = ClientModel::new();
        let mut request = self.request(7);
        request.device = Some("FRESH".into());
        fresh.apply(&world.sync(&request).await);
        let differences = self.model.differences(&fresh, self.mode == Mode::Lazy);
        assert!(
            differences.is_empty(),
            "{what}, {} {:?}:\n{}",
            self.user.id(),
            self.mode,
            differences.join("\n")
        );
    }
}

/// One random operation; most refusals are expected.
async fn operate(world: &World, rng: &mut ChaCha8Rng, users: &[User], rooms: &mut Vec<Room>) {
    let user = &users[rng.random_range(0..users.len())];
    let other = &users[rng.random_range(0..users.len())];
    if rooms.is_empty() || rooms.len() < ROOMS_MAX && rng.random_bool(0.05) {
        let preset = if rng.random_bool(0.6) {
            Preset::PublicChat
        } else {
            Preset::PrivateChat
        };
        rooms.push(world.room(user, preset).await);
        return;
    }
    let room = &rooms[rng.random_range(0..rooms.len())];
    let set = |kind: &str, key: &str, content: Value| {
        let event = hearth_rooms::NewEvent::state(user.id(), kind, key, &content);
        async move { drop(room.send(event, None).await) }
    };
    let number = rng.next_u32() % 1000;
    match rng.random_range(0..22) {
        0..=2 => drop(room.join(user.id(), Map::new()).await),
        3 => drop(room.leave(user.id(), None).await),
        4 => drop(room.invite(user.id(), other.id(), Map::new(), None).await),
        5 => drop(room.kick(user.id(), other.id(), None).await),
        6 => drop(room.ban(user.id(), other.id(), None).await),
        7 => drop(room.unban(user.id(), other.id(), None).await),
        8..=11 => {
            let joined = room.membership(user.id()).unwrap() == hearth_rooms::Membership::Join;
            if joined {
                say(room, user, &format!("message {number}")).await;
            }
        }
        12 => set("m.room.name", "", json!({ "name": format!("room {number}") })).await,
        13 => {
            set(
                "org.example.thing",
                &format!("key {}", number % 3),
                json!({ "n": number }),
            )
            .await
        }
        14 => {
            let visibility = ["joined", "invited", "shared", "world_readable"][number as usize % 4];
            set(
                "m.room.history_visibility",
                "",
                json!({ "history_visibility": visibility }),
            )
            .await;
        }
        15 => {
            let profile = json!({ "displayname": format!("name {number}") });
            drop(room.update_profile(user.id(), profile.as_object().unwrap()).await);
        }
        16 => redact_newest(room, user, ["m.room.message", "m.room.name"][number as usize % 2]).await,
        17 => set_receipt(room, user, number).await,
        18 => {
            if room.membership(user.id()).unwrap() == hearth_rooms::Membership::Join {
                room.set_typing(user.id(), rng.random_bool(0.5).then_some(60_000));
            }
        }
        19 => {
            let content = serde_json::value::to_raw_value(&json!({ "n": number })).unwrap();
            let in_room = rng.random_bool(0.5).then_some(room.id());
            user.set_account_data(in_room, &format!("org.example.{}", number % 3), &content)
                .await
                .unwrap();
        }
        20 => drop(user.set_tag(room.id(), "m.favourite", Map::new()).await),
        _ => drop(user.forget_room(room.id()).await),
    }
}

async fn redact_newest(room: &Room, user: &User, kind: &str) {
    let mut viewer = room.viewer(user.id()).unwrap();
    let page = room.page(hearth_rooms::Place::END, None, true, 1, &mut viewer, &|event| {
        event.pdu.kind() == kind
    });
    let Some(target) = page.unwrap().events.pop() else {
        return;
    };
    drop(room.send(redaction(user, target.id()), None).await);
}

async fn set_receipt(room: &Room, user: &User, number: u32) {
    if room.membership(user.id()).unwrap() != hearth_rooms::Membership::Join {
        return;
    }
    let mut viewer = room.viewer(user.id()).unwrap();
    let page = room
        .page(hearth_rooms::Place::END, None, true, 3, &mut viewer, &|_| true)
        .unwrap();
    let Some(event) = page.events.get(number as usize % page.events.len().max(1)) else {
        return;
    };
    let kind = if number.is_multiple_of(2) {
        ReceiptKind::Public
    } else {
        ReceiptKind::Private
    };
    let thread = number.is_multiple_of(5).then_some("main");
    drop(room.set_receipt(user.id(), kind, thread, event.id()).await);
}

async fn follow_at_random(shards: u16, seed: u64, steps: usize) {
    let world = World::new(shards);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut users = Vec::new();
    for number in 0..USERS {
        users.push(world.user(&format!("user{number}")).await);
    }
    let modes = [Mode::Plain, Mode::StateAfter, Mode::Lazy];
    let follower = |user: &User, mode| Follower {
        user: user.clone(),
        mode,
        model: ClientModel::new(),
    };
    let mut followers: Vec<Follower> = users
        .iter()
        .flat_map(|user| modes.map(|mode| follower(user, mode)))
        .collect();
    let mut rooms = Vec::new();
    for step in 0..steps {
        operate(&world, &mut rng, &users, &mut rooms).await;
        for follower in &mut followers {
            if rng.random_bool(0.15) {
                let limit = rng.random_range(1..6);
                follower.follow(&world, limit).await;
            }
        }
        if step % 50 == 49 {
            for follower in &mut followers {
                follower
                    .check(&world, &format!("{shards} shards, seed {seed}, step {step}"))
                    .await;
            }
        }
    }
    world.log.close();
}

/// Six seeds, or as many as HEARTH_TEST_SEEDS says.
fn seeds(first: u64) -> std::ops::Range<u64> {
    let count = std::env::var("HEARTH_TEST_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(6);
    first..first + count
}

#[tokio::test]
async fn increments_add_up_with_one_shard() {
    for seed in seeds(0) {
        follow_at_random(1, seed, 200).await;
    }
}

#[tokio::test]
async fn increments_add_up_with_sixteen_shards() {
    for seed in seeds(100) {
        follow_at_random(16, seed, 200).await;
    }
}

/// Several users act at once while clients follow without pause: nothing is lost or told twice, and
/// in the end all views agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_add_up_while_others_act() {
    for shards in [1, 16] {
        let world = std::sync::Arc::new(World::new(shards));
        let mut users = Vec::new();
        for number in 0..USERS {
            users.push(world.user(&format!("user{number}")).await);
        }
        let mut tasks = Vec::new();
        for number in 0..3u64 {
            let (world, users) = (world.clone(), users.clone());
            tasks.push(hearth_core::tasks::spawn("actor", async move {
                let mut rng = ChaCha8Rng::seed_from_u64(number);
                let mut rooms = Vec::new();
                for _ in 0..150 {
                    operate(&world, &mut rng, &users, &mut rooms).await;
                }
            }));
        }
        let mut followers: BTreeMap<usize, Follower> = BTreeMap::new();
        for (number, user) in users.iter().enumerate() {
            followers.insert(
                number,
                Follower {
                    user: user.clone(),
                    mode: Mode::Plain,
                    model: ClientModel::new(),
                },
            );
        }
        while tasks.iter().any(|task| !task.is_finished()) {
            for follower in followers.values_mut() {
                follower.follow(&world, 3).await;
            }
            tokio::task::yield_now().await;
        }
        for follower in followers.values_mut() {
            follower.check(&world, &format!("{shards} shards, at once")).await;
        }
        world.log.close();
    }
}
