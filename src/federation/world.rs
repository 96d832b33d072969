//! For tests: one server's rooms, users and queues, and other servers that are a list of what they were sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hearth_cluster::Cluster;
use hearth_core::clock::TokioClock;
use hearth_core::random::SeededRandom;
use hearth_core::{Pool, Shutdown};
use hearth_events::KeyPair;
use hearth_rooms::{CreateRoom, NewEvent, Preset, Received, Room, Rooms, RoomsConfig};
use hearth_storage::{Batch, Engine as _, Family, Log, LogOptions, MemoryEngine, WriterMode};
use hearth_users::{NewAccount, Settings, User, Users};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, RoomVersionId, ServerName, UserId};
use serde_json::{Value, json};

use crate::inbound::Receive;
use crate::outbound::{Failure, Transport};
use crate::{Edus, EdusParts, FedRequest, Inbound, InboundParts, Outbound, OutboundParts};

pub(crate) const OWN: &str = "hs1";

/// The other servers.
#[derive(Default)]
pub(crate) struct Others {
    /// What each was sent, by path and body; failed attempts too.
    pub(crate) sent: Mutex<Vec<(String, String, Value)>>,
    pub(crate) down: Mutex<BTreeSet<String>>,
    /// Asking these panics.
    pub(crate) panicking: Mutex<BTreeSet<String>>,
    /// The answers to requests whose path begins so.
    pub(crate) answers: Mutex<BTreeMap<String, Value>>,
}

#[async_trait]
impl Transport for Others {
    async fn request(&self, request: FedRequest) -> Result<Bytes, Failure> {
        let server = request.destination.to_string();
        let body = request.body.unwrap_or_default();
        self.sent
            .lock()
            .push((server.clone(), request.path_and_query.clone(), body));
        // Something like the way there and back.
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        assert!(!self.panicking.lock().contains(&server), "on purpose");
        if self.down.lock().contains(&server) {
            return Err(Failure {
                status: None,
                retry_after_ms: None,
                why: "down".to_owned(),
                sort: "unreachable",
            });
        }
        let answers = self.answers.lock();
        let answer = answers
            .iter()
            .find(|(path, _)| request.path_and_query.starts_with(path.as_str()));
        let answer = answer.map_or(json!({ "pdus": {} }), |(_, answer)| answer.clone());
        Ok(answer.to_string().into())
    }
}

impl Others {
    /// The transactions that a server was sent: their ids and bodies.
    pub(crate) fn transactions(&self, server: &str) -> Vec<(String, Value)> {
        let sent = self.sent.lock();
        let of_server = sent.iter().filter(|(to, _, _)| to == server);
        of_server
            .filter_map(|(_, path, body)| {
                let id = path.strip_prefix("/_matrix/federation/v1/send/")?;
                Some((id.to_owned(), body.clone()))
            })
            .collect()
    }

    /// The bodies of the messages in the transactions of a server, in order.
    pub(crate) fn bodies(&self, server: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (_, transaction) in self.transactions(server) {
            for pdu in transaction["pdus"].as_array().into_iter().flatten() {
                found.extend(pdu["content"]["body"].as_str().map(str::to_owned));
            }
        }
        found
    }

    /// The contents of the EDUs of a type that a server was sent.
    pub(crate) fn edus(&self, server: &str, kind: &str) -> Vec<Value> {
        let mut found = Vec::new();
        for (_, transaction) in self.transactions(server) {
            for edu in transaction["edus"].as_array().into_iter().flatten() {
                if edu["edu_type"] == kind {
                    found.push(edu["content"].clone());
                }
            }
        }
        found
    }
}

/// Judges events by a script.
#[derive(Default)]
pub(crate) struct Judge {
    pub(crate) seen: Mutex<Vec<(String, String)>>,
    pub(crate) failing: Mutex<BTreeSet<String>>,
    pub(crate) unchecked: Mutex<BTreeSet<String>>,
    pub(crate) panicking: Mutex<BTreeSet<String>>,
    /// These come to no end.
    pub(crate) hanging: Mutex<BTreeSet<String>>,
    /// Nothing can be stored.
    pub(crate) is_full: Mutex<bool>,
}

#[async_trait]
impl Receive for Judge {
    async fn receive(
        &self,
        room: &Room,
        origin: &ServerName,
        pdu: &[u8],
    ) -> Result<Received, hearth_rooms::Error> {
        let body: Value = serde_json::from_slice(pdu).unwrap_or_default();
        let body = body["content"]["body"].as_str().unwrap_or_default().to_owned();
        self.seen.lock().push((room.id().to_string(), body.clone()));
        assert!(!self.panicking.lock().contains(&body), "on purpose");
        if self.hanging.lock().contains(&body) {
            std::future::pending::<()>().await;
        }
        if *self.is_full.lock() {
            return Err(hearth_storage::Error::DiskFull.into());
        }
        if self.unchecked.lock().contains(&body) {
            let server = ruma::server_name!("gone").to_owned();
            return Err(hearth_rooms::Error::MissingKey((
                server,
                "ed25519:1".to_owned(),
                1,
            )));
        }
        if self.failing.lock().contains(&body) {
            return Err(hearth_rooms::Error::Remote(hearth_rooms::RemoteFailure::Failed {
                server: origin.to_owned(),
                why: "away".to_owned(),
            }));
        }
        Ok(Received::Accepted)
    }

    async fn has_any_key(&self, _: &[hearth_rooms::KeyAt]) -> bool {
        self.unchecked.lock().is_empty()
    }
}

pub(crate) struct World {
    pub(crate) engine: Arc<MemoryEngine>,
    pub(crate) log: Arc<Log>,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) users: Arc<Users>,
    pub(crate) others: Arc<Others>,
    pub(crate) judge: Arc<Judge>,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) inbound: Arc<Inbound>,
    pub(crate) edus: Arc<Edus>,
    pub(crate) shutdown: Shutdown,
}

impl World {
    /// With an account: alice.
    pub(crate) async fn new() -> Self {
        Self::of(WriterMode::Inline).await
    }

    /// As [`World::new`], with a log that is written as the product does.
    pub(crate) async fn threaded() -> Self {
        Self::of(WriterMode::Thread).await
    }

    async fn of(mode: WriterMode) -> Self {
        let world = Self::open(MemoryEngine::new(), Arc::default(), mode);
        world
            .users
            .create(&user("alice", OWN), NewAccount::default())
            .await
            .expect("an account");
        world
    }

    pub(crate) fn open(engine: MemoryEngine, others: Arc<Others>, mode: WriterMode) -> Self {
        let engine = Arc::new(engine);
        let server: OwnedServerName = OWN.try_into().expect("a server name");
        let clock = Arc::new(TokioClock::new(1_700_000_000_000));
        let random = Arc::new(SeededRandom::new(7));
        let options = LogOptions {
            shards_if_new: 4,
            mode,
            ..LogOptions::default()
        };
        let log = Log::open_with(engine.clone(), options).expect("the log opens");
        let cluster = Cluster::new(log.clone());
        let users = Users::new(
            log.clone(),
            cluster.clone(),
            clock.clone(),
            random.clone(),
            Pool::inline(),
            Settings::for_tests(server.clone()),
        );
        let config = RoomsConfig {
            server_name: server,
            signing_key: Arc::new(KeyPair::from_seed([7; 32], "test").expect("a key")),
            default_version: RoomVersionId::V11,
            event_cache_bytes: 1 << 20,
            node_cache_bytes: 1 << 20,
            loaded_rooms_bytes: 1 << 20,
            pool: Pool::inline(),
        };
        let rooms = Rooms::new(
            log.clone(),
            cluster.clone(),
            clock.clone(),
            random.clone(),
            config,
        );
        let shutdown = Shutdown::new();
        let outbound = Outbound::new(OutboundParts {
            cluster: cluster.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            transport: others.clone(),
            clock: clock.clone(),
            random,
            shutdown: shutdown.clone(),
        });
        let edus = Edus::new(EdusParts {
            cluster: cluster.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            transport: others.clone(),
            outbound: outbound.clone(),
            clock: clock.clone(),
        });
        let judge = Arc::new(Judge::default());
        let inbound = Inbound::new(InboundParts {
            cluster: cluster.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            receive: judge.clone(),
            edus: edus.clone(),
            outbound: outbound.clone(),
            clock,
            shutdown: shutdown.clone(),
        });
        cluster.start().expect("the cluster starts");
        outbound.start().expect("the outbound queues start");
        inbound.start().expect("the inbound queues start");
        Self {
            engine,
            log,
            rooms,
            users,
            others,
            judge,
            outbound,
            inbound,
            edus,
            shutdown,
        }
    }

    /// The same data after the machine stopped; the other servers are as they were.
    pub(crate) async fn crash(self) -> Self {
        self.shutdown.trigger();
        settle().await;
        let engine = self.engine.crash();
        self.log.close();
        Self::open(engine, self.others, WriterMode::Inline)
    }

    /// Puts what nobody can read in the place of a room's record; what is in memory stays until a crash.
    pub(crate) fn damage_room(&self, room: &Room) {
        let key = hearth_storage::schema::room::RoomKey {
            room: room.key(),
            field: 0,
        };
        self.damage(Family::Room, key.encode());
    }

    /// Puts what nobody can read in the place of a row.
    pub(crate) fn damage(&self, family: Family, key: Vec<u8>) {
        let mut batch = Batch::new();
        batch.put(family, key, [99, 99]);
        self.engine.write(&batch, true).expect("written");
    }

    pub(crate) fn alice(&self) -> User {
        self.users
            .get(&user("alice", OWN))
            .expect("a look")
            .expect("alice")
    }

    /// A public room of alice's in which users of other servers are.
    pub(crate) async fn room(&self, members: &[(&str, &str)]) -> Room {
        let mut spec = CreateRoom::new(user("alice", OWN), Preset::PublicChat);
        spec.version = Some(RoomVersionId::V11);
        let room = self.rooms.create(spec).await.expect("a room");
        for (name, server) in members {
            self.join(&room, name, server).await;
        }
        room
    }

    /// A user of another server joins, by an event that this server makes up: the key of that server is not asked for.
    pub(crate) async fn join(&self, room: &Room, name: &str, server: &str) {
        self.member(room, name, server, "join").await;
    }

    pub(crate) async fn member(
        &self,
        room: &Room,
        name: &str,
        server: &str,
        membership: &str,
    ) -> OwnedEventId {
        let user = user(name, server);
        let content = json!({ "membership": membership });
        let event = NewEvent {
            state_key: Some(user.to_string()),
            ..new_event(&user, "m.room.member", &content)
        };
        room.send(event, None).await.expect("a member").event_id
    }

    /// Alice takes a member out.
    pub(crate) async fn kick(&self, room: &Room, name: &str, server: &str) {
        let event = NewEvent {
            state_key: Some(user(name, server).to_string()),
            ..new_event(
                &user("alice", OWN),
                "m.room.member",
                &json!({ "membership": "leave" }),
            )
        };
        room.send(event, None).await.expect("a kick");
    }

    pub(crate) async fn say(&self, room: &Room, body: &str) {
        let event = new_event(&user("alice", OWN), "m.room.message", &json!({ "body": body }));
        room.send(event, None).await.expect("a message");
    }

    /// A transaction of another server.
    pub(crate) async fn receive(&self, origin: &str, txn: &str, pdus: Vec<Value>, edus: Vec<Value>) -> Value {
        let body = json!({ "origin": origin, "pdus": pdus, "edus": edus }).to_string();
        let origin: OwnedServerName = origin.try_into().expect("a server name");
        self.inbound
            .transaction(&origin, txn, body.as_bytes())
            .await
            .expect("the transaction is taken")
    }
}

fn new_event(sender: &UserId, kind: &str, content: &Value) -> NewEvent {
    NewEvent {
        sender: sender.to_owned(),
        kind: kind.to_owned(),
        state_key: None,
        content: content.to_string().into_bytes(),
        redacts: None,
        timestamp_ms: None,
    }
}

pub(crate) fn user(name: &str, server: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:{server}")).expect("a user id")
}

/// Lets every task run as far as it can without time passing.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Lets time pass, in steps in which everything runs.
pub(crate) async fn pass(seconds: u64) {
    settle().await;
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
    settle().await;
}
