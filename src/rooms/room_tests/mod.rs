//! Rooms over the in-memory engine. A ticket that a test holds back keeps everything later in its shard from becoming
//! durable, so that what is decided and not yet stored can be looked at.

mod aliases;
mod large;
mod order;
mod pending;
mod reading;
mod serve;
mod together;
mod unread;

use std::sync::Arc;

use hearth_cluster::Cluster;
use hearth_core::{Pool, clock::ManualClock, random::SeededRandom};
use hearth_events::KeyPair;
use hearth_storage::{Log, MemoryEngine};
use hearth_users::{NewAccount, Settings, Users};
use ruma::{OwnedServerName, OwnedUserId, RoomVersionId, UserId};
use serde_json::{Map, Value, json};

use crate::{
    CreateRoom, Error, Event, NewEvent, Place, Preset, Room, Rooms, RoomsConfig, Txn, input::Outcome,
    staging::Staged,
};

/// The rooms of a server, and its users.
struct World {
    engine: Arc<MemoryEngine>,
    log: Arc<Log>,
    rooms: Arc<Rooms>,
    users: Arc<Users>,
    clock: Arc<ManualClock>,
}

impl World {
    /// With three accounts: alice, bob, carol.
    async fn new(shards: u16) -> Self {
        let world = Self::open(Arc::new(MemoryEngine::new()), shards);
        for name in ["alice", "bob", "carol"] {
            world
                .users
                .create(&user(name), NewAccount::default())
                .await
                .expect("an account");
        }
        world
    }

    fn open(engine: Arc<MemoryEngine>, shards: u16) -> Self {
        let server: OwnedServerName = "hs1".try_into().expect("a server name");
        let (clock, random) = (
            Arc::new(ManualClock::new(1_700_000_000_000)),
            Arc::new(SeededRandom::new(7)),
        );
        let log = Log::open(engine.clone(), shards).expect("the log opens");
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
            default_version: RoomVersionId::V12,
            event_cache_bytes: 1 << 20,
            node_cache_bytes: 1 << 20,
            loaded_rooms_bytes: 1 << 20,
            pool: hearth_core::Pool::inline(),
        };
        let rooms = Rooms::new(log.clone(), cluster.clone(), clock.clone(), random, config);
        cluster.start().expect("the cluster starts");
        Self {
            engine,
            log,
            rooms,
            users,
            clock,
        }
    }

    /// The same data after the machine stopped.
    fn crash(self) -> Self {
        let engine = Arc::new(self.engine.crash());
        self.log.close();
        Self::open(engine, 1)
    }

    /// A public room of alice's in which bob is.
    async fn room(&self) -> Room {
        let room = self.create("12").await;
        room.join(&user("bob"), Map::new()).await.expect("bob joins");
        room
    }

    async fn create(&self, version: &str) -> Room {
        let mut spec = CreateRoom::new(user("alice"), Preset::PublicChat);
        spec.version = Some(version.try_into().expect("a version"));
        self.rooms.create(spec).await.expect("a room")
    }
}

fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:hs1")).expect("a user id")
}

fn message(sender: &str, content: Value) -> NewEvent {
    NewEvent {
        sender: user(sender),
        kind: "m.room.message".to_owned(),
        state_key: None,
        content: content.to_string().into_bytes(),
        redacts: None,
        timestamp_ms: None,
    }
}

fn text(sender: &str, body: &str) -> NewEvent {
    message(sender, json!({ "body": body }))
}

fn state(sender: &str, kind: &str, content: Value) -> NewEvent {
    NewEvent::state(&user(sender), kind, "", &content)
}

fn redaction(sender: &str, target: &ruma::EventId) -> NewEvent {
    NewEvent {
        kind: "m.room.redaction".to_owned(),
        redacts: Some(target.to_owned()),
        ..message(sender, json!({}))
    }
}

fn txn(id: &str) -> Txn {
    Txn {
        device: "D".to_owned(),
        scope: "send".to_owned(),
        id: id.to_owned(),
    }
}

/// Decides events without storing them.
fn stage(room: &Room, events: Vec<NewEvent>) -> Outcome {
    let prepared: Result<Vec<_>, Error> = events
        .into_iter()
        .map(|event| room.prepare(event, None))
        .collect();
    room.stage(&prepared.expect("well-formed events"), None)
}

fn staged(outcome: Outcome) -> Box<Staged> {
    match outcome {
        Outcome::Staged(staged) => staged,
        Outcome::Repeat(..) => panic!("a repeated transaction"),
        Outcome::Wait(position) => panic!("to wait for {position}"),
        Outcome::Refused(error, _) => panic!("refused: {error}"),
    }
}

/// All events in the order of the timeline.
fn timeline(room: &Room) -> Vec<Arc<Event>> {
    let mut shorts = Vec::new();
    room.visit_timeline(Place::START, Place::END, false, &mut |row| {
        shorts.push(row.short);
        true
    })
    .expect("a timeline");
    room.events(&shorts).expect("its events")
}

/// Lets every spawned task run as far as it can.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
