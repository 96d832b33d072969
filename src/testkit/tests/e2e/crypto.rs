//! Encrypted conversations with real Olm and Megolm: nothing may be unreadable, whatever happens to the servers.

mod backup;
mod device;
mod olm;
mod one_time;
mod signing;
mod trust;

use std::time::Duration;

use hearth_testkit::{Client, Endpoint, Faults, SimNetwork, TestServer, encode};
use serde_json::json;

use device::Device;

/// How often devices sync until they give up: about two hours.
const ROUNDS_MAX: u64 = 500;

/// Servers on a simulated network, and devices at them.
struct World {
    network: SimNetwork,
    servers: Vec<TestServer>,
    devices: Vec<Device>,
    lives: u64,
    room: String,
    said: Vec<String>,
}

impl World {
    fn new(seed: u64, servers: u64, shards: u16) -> Self {
        let network = SimNetwork::new(seed);
        let server = |number| TestServer::simulated(&format!("hs{number}"), shards, seed + number, &network);
        Self {
            servers: (1..=servers).map(server).collect(),
            network,
            devices: Vec::new(),
            lives: seed + servers,
            room: String::new(),
            said: Vec::new(),
        }
    }

    /// Where a user is: Alice at the first server, Bob at the last.
    fn endpoint(&self, name: &str) -> Endpoint {
        let server = if name == "alice" {
            self.servers.first()
        } else {
            self.servers.last()
        };
        server.expect("a server").endpoint()
    }

    async fn register(&mut self, name: &str) {
        let client = Client::register(&self.endpoint(name), name).await;
        self.devices.push(Device::new(client).await);
    }

    async fn login(&mut self, name: &str, id: &str) {
        let client = Client::login(&self.endpoint(name), name, id).await;
        self.devices.push(Device::new(client).await);
    }

    fn at(&self, id: &str) -> usize {
        let at = self.devices.iter().position(|device| device.id() == id);
        at.unwrap_or_else(|| panic!("no device {id}"))
    }

    fn device(&mut self, id: &str) -> &mut Device {
        let at = self.at(id);
        &mut self.devices[at]
    }

    /// All servers stop in the middle of everything and come back; no device saw the answer to its last request.
    async fn crash(&mut self) {
        let (lives, network) = (&mut self.lives, &self.network);
        let again = |server: TestServer| {
            *lives += 1;
            server.crash_simulated(*lives, network)
        };
        self.servers = std::mem::take(&mut self.servers).into_iter().map(again).collect();
        for at in 0..self.devices.len() {
            let user = self.devices[at].user();
            let name = if user.starts_with("@alice") {
                "alice"
            } else {
                "bob"
            };
            let endpoint = self.endpoint(name);
            self.devices[at].reconnect(endpoint).await;
        }
    }

    /// Lets all devices sync until something is so. The pauses grow, because a server that was not reached is asked again
    /// after longer and longer times; they are simulated.
    async fn until(&mut self, what: &str, mut check: impl AsyncFnMut(&mut Vec<Device>) -> bool) {
        for round in 0..ROUNDS_MAX {
            for device in &mut self.devices {
                device.sync().await;
            }
            if check(&mut self.devices).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500 + 50 * round)).await;
        }
        panic!("{what}: not in time");
    }

    /// Every device learns that a user has just these.
    async fn all_know(&mut self, user: &str, ids: &[&str]) {
        self.until(&format!("{user} has {ids:?}"), async |devices| {
            for device in devices {
                if device.devices_of(user).await != ids {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Every device comes to trust every other.
    async fn all_trust(&mut self) {
        let all: Vec<_> = self.devices.iter().map(Device::peer).collect();
        self.until("all trust all", async |devices| {
            for device in devices {
                for peer in &all {
                    if !device.trusts(&peer.user, &peer.device).await {
                        return false;
                    }
                }
            }
            true
        })
        .await;
    }

    async fn say(&mut self, id: &str, body: &str) {
        let room = self.room.clone();
        self.device(id).say(&room, body).await;
        self.said.push(body.to_owned());
    }

    /// Each device says something; the servers crash after each word, and all read everything.
    async fn talk(&mut self, topic: &str) {
        let ids: Vec<_> = self.devices.iter().map(|device| device.id().to_owned()).collect();
        for (at, id) in ids.iter().enumerate() {
            self.say(id, &format!("{topic}: {id} one")).await;
            if at % 2 == 0 {
                self.crash().await;
            }
            self.say(id, &format!("{topic}: {id} two")).await;
            self.crash().await;
        }
        self.all_read(topic).await;
    }

    /// Every device reads all that was said.
    async fn all_read(&mut self, what: &str) {
        let (room, mut said) = (self.room.clone(), self.said.clone());
        said.sort();
        self.until(&format!("all read of {what}"), async |devices| {
            for device in devices {
                let mut read = device.history(&room).await.unwrap_or_default();
                // Two servers may order what was said at once differently.
                read.sort();
                if read != said {
                    return false;
                }
            }
            true
        })
        .await;
        if self.servers.len() == 1 {
            for device in &self.devices {
                assert!(
                    device.early.is_empty(),
                    "shown before the key: {:?}",
                    device.early
                );
            }
        }
    }

    /// A device gives the secrets to a new one of its user, which then signs itself.
    async fn admit(&mut self, old: &str, new: &str) {
        let new_at = self.at(new);
        let user = self.devices[new_at].user().to_owned();
        self.until("the new device is known", async |devices| {
            let old = devices
                .iter_mut()
                .find(|device| device.id() == old)
                .expect("the old device");
            old.devices_of(&user).await.iter().any(|id| id == new)
        })
        .await;
        let stranger = self.devices.remove(new_at);
        self.device(old).give_secrets(&stranger).await;
        self.devices.push(stranger);
        self.crash().await;
        self.until("the secrets", async |devices| {
            devices.last().expect("it").secrets.is_some()
        })
        .await;
        self.device(new).sign_myself().await;
    }

    /// Two users with two devices each, an encrypted room, and everybody verified.
    async fn meet(&mut self) {
        for (name, first, second) in [("alice", "ALICE1", "ALICE2"), ("bob", "BOB1", "BOB2")] {
            self.register(name).await;
            self.device(first).bootstrap().await;
            self.device(first).make_backup().await;
            self.login(name, second).await;
            self.crash().await;
            self.admit(first, second).await;
        }
        let bob = self.device("BOB1").user().to_owned();
        let alice = self.device("ALICE1").user().to_owned();
        let body = json!({
            "preset": "private_chat", "invite": [bob],
            "initial_state": [{ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }],
        });
        self.room = self.device("ALICE1").client.create_room(body).await;
        let path = format!("/rooms/{}/join", encode(&self.room));
        self.device("BOB1").client.post(&path, json!({})).await.ok();
        self.crash().await;
        self.device("ALICE1").verify(&bob).await;
        self.device("BOB1").verify(&alice).await;
        self.crash().await;
        self.all_trust().await;
    }
}

/// The whole life of a conversation.
async fn conversation(mut world: World, faults: Faults) {
    world.meet().await;
    world.network.set_faults(faults);
    world.talk("four devices").await;
    for id in ["ALICE1", "BOB1"] {
        world.device(id).back_up().await;
    }
    world.crash().await;

    // Alice loses a device.
    let lost = world.at("ALICE2");
    let lost = world.devices.remove(lost);
    let alice = lost.user().to_owned();
    let auth = lost.password();
    let first = &world.device("ALICE1").client;
    first
        .call("DELETE", "/devices/ALICE2", json!({ "auth": auth }))
        .await
        .ok();
    world.crash().await;
    let lost = lost.client.on(world.endpoint("alice"));
    lost.get("/sync").await.refused(401, "M_UNKNOWN_TOKEN");
    world.all_know(&alice, &["ALICE1"]).await;
    world.talk("without the lost device").await;

    // She gets a new one, which reads what was said before from the backup.
    world.device("ALICE1").back_up().await;
    world.login("alice", "ALICE3").await;
    world.crash().await;
    world.admit("ALICE1", "ALICE3").await;
    world.crash().await;
    world.device("ALICE3").restore().await;
    world.all_know(&alice, &["ALICE1", "ALICE3"]).await;
    world.all_trust().await;
    world.all_read("the backup").await;
    world.talk("with the new device").await;

    // Bob loses all he has but the recovery key.
    world.device("BOB1").back_up().await;
    let mut kept = None;
    for id in ["BOB1", "BOB2"] {
        let at = world.at(id);
        let mut gone = world.devices.remove(at);
        gone.client.post("/logout", json!({})).await.ok();
        kept = kept.or(gone.secrets.take().zip(gone.backup.take()));
    }
    world.crash().await;
    world.login("bob", "BOB3").await;
    let (secrets, backup) = kept.expect("the recovery key");
    let fresh = world.device("BOB3");
    let bob = fresh.user().to_owned();
    fresh.secrets = Some(secrets);
    fresh.backup = Some(backup);
    fresh.sign_myself().await;
    world.crash().await;
    world.device("BOB3").restore().await;
    world.all_know(&bob, &["BOB3"]).await;
    world.all_trust().await;
    world.all_read("the recovery").await;
    world.talk("at the end").await;
}

#[tokio::test(start_paused = true)]
async fn on_one_server_with_one_shard() {
    conversation(World::new(41, 1, 1), Faults::default()).await;
}

#[tokio::test(start_paused = true)]
async fn on_one_server_with_16_shards() {
    conversation(World::new(42, 1, 16), Faults::default()).await;
}

#[tokio::test(start_paused = true)]
async fn across_two_servers() {
    conversation(World::new(43, 2, 4), Faults::default()).await;
}

#[tokio::test(start_paused = true)]
async fn across_two_servers_on_a_bad_network() {
    let faults = Faults {
        lost_requests: 15,
        lost_replies: 15,
        repeats: 15,
        slow: 5,
        ..Faults::default()
    };
    conversation(World::new(44, 2, 4), faults).await;
}
