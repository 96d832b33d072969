//! The engine on the memory engine, with one shard and with sixteen.

#[path = "../../testkit/client_model.rs"]
mod client_model;
mod costs;
mod devices;
mod following;
mod memberships;
mod presence;
mod sliding;
mod syncing;
mod tokens;
mod waking;

use std::{sync::Arc, time::Duration};

use hearth_cluster::Cluster;
use hearth_core::{Pool, Shutdown, clock::ManualClock, random::SeededRandom};
use hearth_events::KeyPair;
use hearth_rooms::{CreateRoom, NewEvent, Preset, Room, Rooms, RoomsConfig};
use hearth_storage::{Log, MemoryEngine};
use hearth_users::{NewAccount, PresenceState, Settings, User, Users};
use ruma::{EventId, OwnedEventId, OwnedUserId, RoomVersionId, UserId, server_name};
use serde_json::{Map, Value, json};

use crate::{Filter, StateSide, SyncEngine, SyncRequest, SyncToken, v3};

/// A whole server below the API.
struct World {
    engine: Arc<MemoryEngine>,
    log: Arc<Log>,
    clock: Arc<ManualClock>,
    rooms: Arc<Rooms>,
    users: Arc<Users>,
    sync: Arc<SyncEngine>,
    shutdown: Shutdown,
}

impl World {
    fn new(shards: u16) -> Self {
        Self::on(Arc::new(MemoryEngine::new()), shards, 1)
    }

    fn on(engine: Arc<MemoryEngine>, shards: u16, seed: u64) -> Self {
        let log = Log::open(engine.clone(), shards).unwrap();
        let cluster = Cluster::new(log.clone());
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let random = Arc::new(SeededRandom::new(seed));
        let server_name = server_name!("example.org").to_owned();
        let users = Users::new(
            log.clone(),
            cluster.clone(),
            clock.clone(),
            random.clone(),
            Pool::inline(),
            Settings::for_tests(server_name.clone()),
        );
        let config = RoomsConfig {
            server_name,
            signing_key: Arc::new(KeyPair::from_seed([7; 32], "a_test").unwrap()),
            default_version: RoomVersionId::V12,
            event_cache_bytes: 4 << 20,
            node_cache_bytes: 1 << 20,
            loaded_rooms_bytes: 1 << 20,
            pool: hearth_core::Pool::inline(),
        };
        let rooms = Rooms::new(
            log.clone(),
            cluster.clone(),
            clock.clone(),
            random.clone(),
            config,
        );
        let shutdown = Shutdown::new();
        let sync = SyncEngine::new(
            rooms.clone(),
            users.clone(),
            clock.clone(),
            random,
            shutdown.clone(),
        );
        cluster.start().unwrap();
        Self {
            engine,
            log,
            clock,
            rooms,
            users,
            sync,
            shutdown,
        }
    }

    /// The same data in another process.
    fn restarted(self) -> Self {
        self.log.close();
        Self::on(self.engine.clone(), 1, 2)
    }

    async fn user(&self, name: &str) -> User {
        self.users.create(&id(name), NewAccount::default()).await.unwrap()
    }

    async fn room(&self, creator: &User, preset: Preset) -> Room {
        // Two equal rooms of version 12 made in the same millisecond would have the same id.
        self.clock.advance(1);
        self.rooms
            .create(CreateRoom::new(creator.id().to_owned(), preset))
            .await
            .unwrap()
    }

    async fn sync(&self, request: &SyncRequest) -> Value {
        let mut view = self.sync.sync(request).await.unwrap();
        serde_json::from_str(&v3::render(request, &mut view).unwrap()).unwrap()
    }
}

fn id(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:example.org")).unwrap()
}

fn request(user: &User) -> SyncRequest {
    SyncRequest {
        user: user.clone(),
        device: Some("DEVICE".into()),
        filter: Arc::new(Filter::default()),
        since: None,
        full_state: false,
        state: StateSide::Before,
        timeout: Duration::ZERO,
        set_presence: PresenceState::Offline,
        to_device: true,
        events_max: usize::MAX,
    }
}

impl SyncRequest {
    fn since(mut self, answer: &Value) -> Self {
        self.since = Some(SyncToken::parse(answer["next_batch"].as_str().unwrap()).unwrap());
        self
    }

    fn filter(mut self, filter: Value) -> Self {
        self.filter = Arc::new(Filter::from_value(filter).unwrap());
        self
    }

    fn wait(mut self, ms: u64) -> Self {
        self.timeout = Duration::from_millis(ms);
        self
    }
}

async fn say(room: &Room, sender: &User, body: &str) -> OwnedEventId {
    let event = NewEvent {
        sender: sender.id().to_owned(),
        kind: "m.room.message".to_owned(),
        state_key: None,
        content: json!({ "msgtype": "m.text", "body": body })
            .to_string()
            .into_bytes(),
        redacts: None,
        timestamp_ms: None,
    };
    room.send(event, None).await.unwrap().event_id
}

async fn set(room: &Room, sender: &User, kind: &str, key: &str, content: Value) -> OwnedEventId {
    room.send(NewEvent::state(sender.id(), kind, key, &content), None)
        .await
        .unwrap()
        .event_id
}

fn redaction(sender: &User, target: &EventId) -> NewEvent {
    NewEvent {
        sender: sender.id().to_owned(),
        kind: "m.room.redaction".to_owned(),
        state_key: None,
        content: json!({ "redacts": target }).to_string().into_bytes(),
        redacts: Some(target.to_owned()),
        timestamp_ms: None,
    }
}

async fn join(room: &Room, user: &User) {
    room.join(user.id(), Map::new()).await.unwrap();
}

/// The bodies of the messages, and the types of the other events, of a joined room's timeline.
fn bodies(answer: &Value, section: &str, room: &Room) -> Vec<String> {
    let events = answer["rooms"][section][room.id().as_str()]["timeline"]["events"].as_array();
    let word = |event: &Value| {
        event["content"]["body"]
            .as_str()
            .or(event["type"].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    events.into_iter().flatten().map(word).collect()
}

/// The types and keys of the state of a room.
fn state(answer: &Value, section: &str, room: &Room, name: &str) -> Vec<String> {
    let events = answer["rooms"][section][room.id().as_str()][name]["events"].as_array();
    let word = |event: &Value| {
        format!(
            "{}|{}",
            event["type"].as_str().unwrap(),
            event["state_key"].as_str().unwrap()
        )
    };
    let mut all: Vec<String> = events.into_iter().flatten().map(word).collect();
    all.sort();
    all
}
