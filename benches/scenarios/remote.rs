//! What it costs to accept a message that another server signed, by the number of members of the room: the whole way from
//! the signed transaction to the published event, on RocksDB. The server is in this process, because other servers are
//! reached by TLS alone; processor time of the process counts, in interleaved rounds, the median of them. The events are
//! made before a round begins.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::config::Api;
use hearth_core::{Config, Pool};
use hearth_rooms::{NewEvent, Room};
use hearth_server::{Deps, Server};
use hearth_storage::{RocksEngine, RocksOptions};
use hearth_testkit::{Client, Endpoint, Faults, SimNetwork};
use ruma::{OwnedEventId, OwnedUserId};
use serde_json::{Value, json};

use crate::ceilings::Ceilings;
use crate::measure::{median, process_cpu};
use crate::report::{Report, Row};
use crate::{Result, Settings, process};

#[path = "../../src/testkit/tests/e2e/federation_hostile/peer.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod peer;
use peer::{Known, NOW_MS, Peer, json_of};

/// Room sizes; the last against the first is the figure.
const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];
const ROUNDS: usize = 7;
/// Events of one room in a round: whole transactions.
const EVENTS: usize = 500;
/// The most events of a transaction.
const TRANSACTION: usize = 50;
/// Members that join at once while a room is prepared.
const JOINS_AT_ONCE: usize = 200;
const MEMORY_BYTES: usize = 256 << 20;

struct Measured {
    size: usize,
    room: Room,
    known: Known,
    last: OwnedEventId,
    depth: u64,
    sent: usize,
    /// Microseconds for each event: in full transactions, and one in each.
    full: Vec<f64>,
    single: Vec<f64>,
}

/// Runs the scenario.
pub fn run(settings: &Settings, ceilings: &Ceilings, report: &mut Report) -> Result<()> {
    let folder = process::temporary(settings)?;
    let mut sizes: Vec<usize> = SIZES
        .iter()
        .map(|size| settings.count(*size).max(SIZES[0]))
        .collect();
    // Shrunk sizes may be equal.
    sizes.dedup();
    // A thread of its own: the load program's runtime has one thread and is busy with this scenario.
    let figures = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(measure_all(&sizes, folder.path().to_owned()))
        });
        thread.join().map_err(|_| "accepting messages failed")
    })?;
    // Twice the work on a signature (the request's and the event's) is what no server can do without.
    let ceiling = ceilings.hash + 2.0 * ceilings.sign;
    for (at, what) in ["in transactions of 50", "in transactions of one"]
        .iter()
        .enumerate()
    {
        for (size, costs) in &figures {
            let figure = format!("accept a remote message, {size} members, {what}");
            let row = Row::new(figure, costs[at], "µs CPU").ceiling(ceiling);
            report.add(
                row.note("the ceiling is the hashes and two signatures; the test network is part of it"),
            );
        }
        if let (Some(first), Some(last)) = (figures.first(), figures.last()) {
            let figure = format!("accept a remote message, largest room against smallest, {what}");
            report.add(Row::new(figure, last.1[at] / first.1[at], "times").at_most(1.5));
        }
    }
    Ok(())
}

/// For each size what a message costs, in full transactions and alone.
async fn measure_all(sizes: &[usize], folder: PathBuf) -> Vec<(usize, [f64; 2])> {
    let network = SimNetwork::new(1);
    network.set_faults(Faults {
        delay_ms: 0..1,
        ..Faults::default()
    });
    let peer = Peer::new("peer", &network);
    let server = start(folder, &network);
    let router = server.router(&[Api::Client, Api::Federation]);
    network.add("hs1", router.clone());
    let admin = Client::register(&Endpoint::Router(router), "admin").await;
    let mut rooms = Vec::new();
    for size in sizes {
        rooms.push(prepare(&server, &admin, &peer, *size).await);
        eprintln!("  {size} members are there");
    }
    // The first round does not count.
    for round in 0..=ROUNDS {
        for room in &mut rooms {
            measure(&server, &peer, room, round > 0).await;
        }
    }
    server.shutdown().trigger();
    server.parts().close().await;
    let each = |mut room: Measured| (room.size, [median(&mut room.full), median(&mut room.single)]);
    rooms.into_iter().map(each).collect()
}

fn start(folder: PathBuf, network: &SimNetwork) -> Server {
    let mut config = Config::for_tests("hs1");
    config.message_search.enabled = false;
    let mut deps = Deps::for_tests(folder.join("media"));
    let options = RocksOptions {
        memory_limit_bytes: MEMORY_BYTES,
    };
    deps.engine = Arc::new(RocksEngine::open(folder.join("data"), options).expect("the engine opens"));
    deps.pool = Pool::new(2);
    deps.clock = network.clock(NOW_MS);
    deps.outbound = network.link("hs1");
    let server = Server::build(config, deps).expect("the server is built");
    server.start().expect("the server starts");
    server
}

/// A room with the peer's user in it and so many members of this server.
async fn prepare(server: &Server, admin: &Client, peer: &Peer, size: usize) -> Measured {
    let made = json!({ "preset": "public_chat", "room_version": "11" });
    let id = admin.create_room(made).await;
    let known = peer.join("hs1", &id, "11").await;
    let parts = server.parts();
    let room = parts.rooms.require(&known.id).expect("the room");
    let mut joining = tokio::task::JoinSet::new();
    for member in 2..size {
        if joining.len() >= JOINS_AT_ONCE {
            joining.join_next().await.expect("one of them").expect("a join");
        }
        let user = OwnedUserId::try_from(format!("@u{member}:hs1")).expect("a user id");
        let (room, users) = (room.clone(), parts.users.clone());
        joining.spawn(async move {
            if users.get(&user).expect("users can be read").is_none() {
                users.create(&user, Default::default()).await.expect("an account");
            }
            let join = NewEvent {
                state_key: Some(user.to_string()),
                sender: user,
                kind: "m.room.member".to_owned(),
                content: br#"{"membership":"join"}"#.to_vec(),
                redacts: None,
                timestamp_ms: None,
            };
            room.send(join, None).await.expect("it is sent");
        });
    }
    while let Some(joined) = joining.join_next().await {
        joined.expect("a join");
    }
    let tips = room.tips().expect("the tips");
    Measured {
        size,
        room,
        known,
        last: tips[0].id().to_owned(),
        depth: tips[0].pdu.depth(),
        sent: 0,
        full: Vec::new(),
        single: Vec::new(),
    }
}

async fn measure(server: &Server, peer: &Peer, room: &mut Measured, counts: bool) {
    for at_once in [TRANSACTION, 1] {
        let events: Vec<Value> = (0..EVENTS).map(|_| room.next(peer)).collect();
        // What the round before left to be done is not of this one.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = cpu_seconds();
        for (at, events) in events.chunks(at_once).enumerate() {
            let txn = format!("{}-{}-{at}", room.size, room.sent);
            for (event, outcome) in peer
                .send("hs1", &txn, events)
                .await
                .as_object()
                .expect("outcomes")
            {
                assert_eq!(*outcome, json!({}), "{event}");
            }
        }
        while !server.parts().api.federation.inbound.status().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let took = (cpu_seconds() - before) * 1e6 / EVENTS as f64;
        let tips = room.room.tips().expect("the tips");
        assert_eq!(tips.len(), 1);
        assert_eq!(tips[0].id(), room.last, "every event is part of the room");
        if counts {
            let figures = if at_once == 1 {
                &mut room.single
            } else {
                &mut room.full
            };
            figures.push(took);
        }
    }
}

impl Measured {
    /// The peer's next message, on top of its last one.
    fn next(&mut self, peer: &Peer) -> Value {
        self.depth += 1;
        self.sent += 1;
        let body = format!("{:x<100}", self.sent);
        let event = self
            .known
            .message(peer, &body, std::slice::from_ref(&self.last), self.depth);
        self.last = event.event_id.clone();
        json_of(&event)
    }
}

fn cpu_seconds() -> f64 {
    process_cpu(std::process::id())
        .expect("the system has /proc")
        .as_secs_f64()
}
