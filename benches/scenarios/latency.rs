//! Delivery latency at fixed rates, open loop: from before the PUT until the message is parsed out of the answer of
//! a receiver's `/sync`. A message that could not be sent in time counts from when it should have been. Once between
//! pairs, and once with a crowd: many clients that are connected, some of them in each room.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::try_join_all;

use crate::client::Conn;
use crate::matrix::{self, Account, message, send_target};
use crate::measure::{Meter, micros_each, percentile};
use crate::process::{Home, Running};
use crate::report::{Report, Row};
use crate::{Error, Result, Settings};

/// Rooms, each with one sender and one receiver.
const ROOMS: usize = 16;
/// Rooms and receivers in each where there is a crowd: 200 clients are connected.
const CROWD: (usize, usize) = (20, 9);
/// Messages a second in the crowd.
const CROWD_RATE: f64 = 200.0;
/// Connections of each sender, so that one slow answer holds up no other message.
const CONNECTIONS: usize = 8;
/// Receivers wait this long in one call.
const POLL_MS: u64 = 30_000;
/// The last messages may take this long.
const GRACE: Duration = Duration::from_secs(5);

struct Room {
    sender: Account,
    room: String,
    /// Who waits for messages, each with a filter. In a crowd the sender does too.
    receivers: Vec<(Account, String)>,
}

/// What a run at one rate shares.
struct Course<'a> {
    address: SocketAddr,
    epoch: Instant,
    rate: f64,
    end: Instant,
    sent: Cell<usize>,
    latencies: RefCell<Vec<f64>>,
    stop: tokio::sync::watch::Sender<bool>,
    tag: &'a str,
    /// Receivers of each message.
    readers: usize,
}

/// Runs the scenario at 100 messages a second and at half of the highest rate, and in a crowd.
pub async fn run(settings: &Settings, highest: Option<f64>, report: &mut Report) -> Result<()> {
    let home = Home::new(settings)?;
    let (server, _) = home.start()?;
    let rooms = prepare(server.address, "pair", ROOMS, 1).await?;
    let mut rates = settings.rates.clone();
    if rates.is_empty() {
        rates.push(100.0);
        rates.extend(highest.map(|highest| highest / 2.0));
    }
    for (number, rate) in rates.into_iter().enumerate() {
        let name = format!("PUT to parsed from /sync at {rate:.0}/s");
        measure(
            settings,
            &server,
            &rooms,
            rate,
            &format!("r{number}"),
            &name,
            report,
        )
        .await?;
    }
    let (rooms, receivers) = CROWD;
    let clients = rooms * (receivers + 1);
    let rooms = prepare(server.address, "crowd", rooms, receivers).await?;
    let name = format!("PUT to parsed at {CROWD_RATE:.0}/s, {clients} clients connected");
    measure(settings, &server, &rooms, CROWD_RATE, "crowd", &name, report).await?;
    server.stop()
}

async fn measure(
    settings: &Settings,
    server: &Running,
    rooms: &[Room],
    rate: f64,
    tag: &str,
    name: &str,
    report: &mut Report,
) -> Result<()> {
    let epoch = Instant::now();
    let course = Course {
        address: server.address,
        epoch,
        rate,
        end: epoch + Duration::from_secs_f64(settings.seconds * 2.0),
        sent: Cell::new(0),
        latencies: RefCell::default(),
        stop: tokio::sync::watch::Sender::new(false),
        tag,
        readers: rooms.first().map_or(0, |room| room.receivers.len()),
    };
    let meter = Meter::start(server.pid())?;
    course.run(rooms).await?;
    let usage = meter.stop()?;
    let mut latencies = course.latencies.take();
    let sent = course.sent.get();
    let lost = sent * course.readers - latencies.len();
    let each = micros_each(usage.server, sent);
    let note = format!(
        "{sent} messages to {} each, {lost} not seen; server {each:.0} µs for send and delivery; other work on {:.2} processors",
        course.readers, usage.others
    );
    report.add(
        Row::new(format!("{name}, p50"), percentile(&mut latencies, 0.5), "ms")
            .at_most(5.0)
            .note(note),
    );
    report.add(Row::new(format!("{name}, p99"), percentile(&mut latencies, 0.99), "ms").at_most(20.0));
    Ok(())
}

/// Rooms with a sender and so many others each, all of whom wait for messages; between pairs the other alone does.
async fn prepare(address: SocketAddr, prefix: &str, rooms: usize, others: usize) -> Result<Vec<Room>> {
    let senders = matrix::register_many(address, &format!("{prefix}-sender"), rooms).await?;
    let receivers = matrix::register_many(address, &format!("{prefix}-receiver"), rooms * others).await?;
    matrix::spread(address, rooms, async |conn: &mut Conn, at: usize| {
        let sender = senders[at].clone();
        let room = matrix::create_room(conn, &sender.token).await?;
        let mut waiting = Vec::new();
        for receiver in &receivers[at * others..(at + 1) * others] {
            matrix::join(conn, &receiver.token, &room).await?;
            waiting.push((receiver.clone(), matrix::filter(conn, receiver).await?));
        }
        if others > 1 {
            waiting.push((sender.clone(), matrix::filter(conn, &sender).await?));
        }
        Ok(Room {
            sender,
            room,
            receivers: waiting,
        })
    })
    .await
}

impl Course<'_> {
    async fn run(&self, rooms: &[Room]) -> Result<()> {
        let receivers = try_join_all(
            rooms
                .iter()
                .flat_map(|room| &room.receivers)
                .map(|(account, filter)| self.receive(account, filter)),
        );
        let senders =
            async {
                // The receivers' first calls are behind them.
                tokio::time::sleep(Duration::from_millis(200)).await;
                let lanes = (0..CONNECTIONS).flat_map(|lane| (0..rooms.len()).map(move |at| (lane, at)));
                try_join_all(lanes.map(|(lane, at)| {
                    self.send(&rooms[at], lane * rooms.len() + at, rooms.len() * CONNECTIONS)
                }))
                .await?;
                let end = Instant::now() + GRACE;
                while self.latencies.borrow().len() < self.sent.get() * self.readers && Instant::now() < end {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                self.stop.send_replace(true);
                Ok::<_, Error>(())
            };
        futures::future::try_join(receivers, senders).await?;
        Ok(())
    }

    /// One lane of the messages: every so many of them, at its own times.
    async fn send(&self, room: &Room, lane: usize, lanes: usize) -> Result<()> {
        let mut conn = Conn::open(self.address).await?;
        let lanes = lanes as f64;
        let (period, target) = (lanes / self.rate, send_target(&room.room));
        let begin = Instant::now() + Duration::from_secs_f64(period * lane as f64 / lanes);
        for number in 0.. {
            let due = begin + Duration::from_secs_f64(period * f64::from(number));
            if due > self.end {
                return Ok(());
            }
            let late = Instant::now() > due;
            tokio::time::sleep_until(due.into()).await;
            // The timer's own grain is not the server's.
            let from = if late { due } else { Instant::now() };
            let body = message(&format!(
                "{} {} ",
                self.tag,
                from.duration_since(self.epoch).as_nanos()
            ));
            self.sent.set(self.sent.get() + 1);
            let path = format!("{target}{}_{lane}_{number}", self.tag);
            conn.ok("PUT", &path, &room.sender.token, &body).await?;
        }
        Ok(())
    }

    async fn receive(&self, account: &Account, filter: &str) -> Result<()> {
        let mut conn = Conn::open(self.address).await?;
        let (token, filter) = (&account.token, Some(filter));
        let mut since = matrix::sync_token(&mut conn, token, None, filter).await?;
        let mut stop = self.stop.subscribe();
        loop {
            let target = matrix::sync_target(Some(&since), POLL_MS, filter);
            let answer = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                answer = conn.ok("GET", &target, token, b"") => answer?,
            };
            let (next, texts) = matrix::read_sync(answer)?;
            let now = self.epoch.elapsed();
            since = next;
            for text in texts {
                let mut words = text.split(' ');
                if words.next() != Some(self.tag) {
                    continue;
                }
                let from: u64 = words.next().unwrap_or_default().parse()?;
                let taken = now.saturating_sub(Duration::from_nanos(from));
                self.latencies.borrow_mut().push(taken.as_secs_f64() * 1e3);
            }
        }
    }
}
