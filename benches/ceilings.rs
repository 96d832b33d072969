//! What this machine allows at best, measured in the same run: an HTTP handler that echoes JSON, a synced
//! group commit of batches as large as a message's, the hashes and the signature of such an event.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::routing::{get, put};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use hearth_events::{Draft, KeyPair, build, rules};
use hearth_storage::{
    Batch, EntityKey, Family, FeedItem, FeedKind, Log, Record, RocksEngine, RocksOptions, slot_of,
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId, server_name};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::measure::{micros_each, process_cpu};
use crate::report::{Report, Row};
use crate::scenarios::sends::{Flood, Target};
use crate::{Result, Settings, matrix, process};

/// How often an event is hashed or signed.
const EVENT_ROUNDS: usize = 20_000;
/// The echo server never answers a long poll sooner.
const POLL_SECONDS: u64 = 3600;

/// The ceilings for each number of senders.
pub struct Ceilings {
    by_senders: BTreeMap<usize, AtOnce>,
    /// Microseconds to build an event with both its hashes.
    pub hash: f64,
    /// Microseconds to sign it.
    pub sign: f64,
}

/// The ceilings at one number of senders.
#[derive(Clone, Copy, Default)]
pub struct AtOnce {
    /// Microseconds of CPU for an echo.
    pub echo: f64,
    /// Microseconds of CPU for a commit.
    pub commit: f64,
    /// Commits a second.
    pub commits: f64,
}

impl Ceilings {
    /// Measures what the chosen scenarios need.
    pub async fn measure(settings: &Settings, report: &mut Report) -> Result<Self> {
        eprintln!("hearth-load: ceilings");
        let (hash, sign) = event_costs()?;
        report.add(Row::new("build an event with both hashes", hash, "µs"));
        report.add(Row::new("sign an event", sign, "µs"));
        let mut by_senders = BTreeMap::new();
        let all: &[usize] = if settings.runs("sends") {
            &settings.senders
        } else {
            &[64]
        };
        for &senders in all {
            let echo = echo_cost(settings, senders).await?;
            let commits = commit_costs(settings, senders)?;
            let each = micros_each(Duration::from_nanos(commits.cpu_ns), commits.count);
            let rate = commits.count as f64 / commits.seconds;
            report.add(Row::new(format!("echo JSON, {senders} at once"), echo, "µs CPU"));
            report.add(Row::new(
                format!("synced group commit, {senders} at once"),
                each,
                "µs CPU",
            ));
            report.add(Row::new(
                format!("synced group commits, {senders} at once"),
                rate,
                "/s",
            ));
            by_senders.insert(
                senders,
                AtOnce {
                    echo,
                    commit: each,
                    commits: rate,
                },
            );
        }
        Ok(Self {
            by_senders,
            hash,
            sign,
        })
    }

    /// The ceilings for a number of senders, or those for the next smaller number measured.
    pub fn at(&self, senders: usize) -> AtOnce {
        let below = self.by_senders.range(..=senders).next_back();
        below
            .or_else(|| self.by_senders.iter().next())
            .map(|(_, found)| *found)
            .unwrap_or_default()
    }

    /// The sum of the parts of a send, in microseconds.
    pub fn send(&self, senders: usize) -> f64 {
        let at = self.at(senders);
        at.echo + self.hash + self.sign + at.commit
    }
}

/// The echo ceiling's process.
pub fn serve_echo() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let router = Router::new()
            .route(
                "/_matrix/client/v3/rooms/{room}/send/{kind}/{txn}",
                put(async |Json(body): Json<Value>| Json(body)),
            )
            .route(
                "/_matrix/client/v3/sync",
                get(async || {
                    tokio::time::sleep(Duration::from_secs(POLL_SECONDS)).await;
                    "{}"
                }),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router).await?;
        Ok(())
    })
}

async fn echo_cost(settings: &Settings, senders: usize) -> Result<f64> {
    let echo = process::start_echo()?;
    let target = Target {
        path: matrix::send_target("!room:localhost"),
        token: "token".to_owned(),
    };
    let flood = Flood {
        address: echo.address,
        pid: echo.pid(),
        seconds: settings.seconds / 2.0,
    };
    let measured = flood.run(&vec![target; senders]).await?;
    Ok(measured.server_micros())
}

#[derive(Deserialize, Serialize)]
struct Commits {
    count: usize,
    cpu_ns: u64,
    seconds: f64,
}

fn commit_costs(settings: &Settings, committers: usize) -> Result<Commits> {
    let folder = process::temporary(settings)?;
    let output = Command::new(std::env::current_exe()?)
        .arg("commits")
        .arg(folder.path())
        .args([committers.to_string(), settings.seconds.to_string()])
        .output()?;
    if !output.status.success() {
        return Err(format!("commits: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The group commit ceiling's process: commits through the log until the time is over, and prints what it took.
pub fn run_commits(folder: &Path, committers: usize, seconds: f64) -> Result<()> {
    let engine = Arc::new(RocksEngine::open(folder, RocksOptions::default())?);
    let log = Log::open(engine, 16)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(async {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for committer in 0..committers {
            let (log, stop, count) = (log.clone(), stop.clone(), count.clone());
            tasks.push(hearth_core::tasks::spawn("committer", async move {
                let room = format!("!{committer}:localhost");
                let entity = EntityKey {
                    slot: slot_of(&room),
                    no: committer as u32,
                };
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let ticket = log.reserve(log.shard_of(entity.slot));
                    if ticket.submit(record_of_message(entity, number)).await.is_err() {
                        return;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let pid = std::process::id();
        let (start, cpu, before) = (Instant::now(), process_cpu(pid)?, count.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        let (taken, cpu) = (start.elapsed(), process_cpu(pid)?.saturating_sub(cpu));
        let done = count.load(Ordering::Relaxed) - before;
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await?;
        }
        let cpu_ns = u64::try_from(cpu.as_nanos())?;
        Ok::<_, crate::Error>(Commits {
            count: usize::try_from(done)?,
            cpu_ns,
            seconds: taken.as_secs_f64(),
        })
    })?;
    log.close();
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// The rows that a message of 100 bytes writes: the event, its id, its place, its transaction, the room's head and
/// its feed item, with keys and values as long as there.
fn record_of_message(entity: EntityKey, number: u32) -> Record {
    let mut batch = Batch::new();
    let key = |tail: &[u8]| {
        let mut key = entity.slot.to_bytes().to_vec();
        key.extend_from_slice(&entity.no.to_be_bytes());
        key.extend_from_slice(tail);
        key
    };
    let number = u64::from(number);
    let mut mixed = [0; 48];
    for (at, byte) in mixed.iter_mut().enumerate() {
        *byte = (number
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(at as u32 * 5)
            & 0xFF) as u8;
    }
    let place = [&number.to_be_bytes()[..], &[0x80, 0, 0, 0]].concat();
    batch.put(
        Family::RoomEvent,
        key(&number.to_be_bytes()[4..]),
        mixed.repeat(16),
    );
    batch.put(Family::RoomEventId, key(&mixed[..44]), vec![0; 4]);
    batch.put(Family::RoomTimeline, key(&place), vec![0; 12]);
    batch.put(Family::RoomTxn, key(&mixed[..16]), vec![0; 4]);
    batch.put(Family::Room, key(&[1]), mixed.repeat(3));
    let feed = vec![FeedItem {
        entity,
        kind: FeedKind::RoomEvent,
        reference: number,
    }];
    Record {
        batch,
        feed,
        ..Record::default()
    }
}

/// Microseconds to build an event like those of the runs, and to sign it.
fn event_costs() -> Result<(f64, f64)> {
    let rules = rules(&RoomVersionId::V12).ok_or("no rules of version 12")?;
    let id =
        |letter: &str| -> Result<OwnedEventId> { Ok(EventId::parse(format!("${}", letter.repeat(43)))?) };
    let room = OwnedRoomId::try_from(format!("!{}", "r".repeat(43)))?;
    let sender = OwnedUserId::try_from("@sender12:localhost")?;
    let content = matrix::message("hash ");
    let content = hearth_events::canonical::canonicalize(&content, true)?.into_owned();
    let (prev, auth) = ([id("p")?], [id("a")?, id("b")?]);
    let key = KeyPair::from_seed([7; 32], "load")?;
    let mut built = Vec::with_capacity(EVENT_ROUNDS);
    let start = Instant::now();
    for depth in 0..EVENT_ROUNDS as u64 {
        let draft = Draft {
            room_id: Some(&room),
            sender: &sender,
            kind: "m.room.message",
            state_key: None,
            content: &content,
            origin_server_ts: 1_700_000_000_000,
            depth,
            prev_events: &prev,
            auth_events: &auth,
            redacts: None,
        };
        built.push(build(rules, &draft, None)?);
    }
    let hash = micros_each(start.elapsed(), EVENT_ROUNDS);
    let server = server_name!("localhost");
    let start = Instant::now();
    for event in built {
        black_box(event.sign(&key, server));
    }
    Ok((hash, micros_each(start.elapsed(), EVENT_ROUNDS)))
}
