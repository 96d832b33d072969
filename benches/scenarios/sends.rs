//! Sends a second, and server CPU for each, in one room and in many, with growing numbers of senders.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::try_join_all;

use crate::ceilings::Ceilings;
use crate::client::Conn;
use crate::matrix::{self, Account, message, send_target, spread};
use crate::measure::{Meter, Usage, micros_each, percentile};
use crate::process::Home;
use crate::report::{Report, Row};
use crate::{Error, Result, Settings};

/// Senders run this long before the window starts.
const WARM_UP: Duration = Duration::from_millis(700);
/// The processors of the machine for which the aims are stated.
const PROCESSORS: f64 = 2.0;

/// Where one sender sends to.
#[derive(Clone)]
pub struct Target {
    /// The request target without the transaction id.
    pub path: String,
    /// The access token.
    pub token: String,
}

/// Senders that send one message after the other.
pub struct Flood {
    /// The server's address.
    pub address: SocketAddr,
    /// The server's process.
    pub pid: u32,
    /// How long the window is.
    pub seconds: f64,
}

/// What a flood measured.
pub struct Measured {
    /// What was used.
    pub usage: Usage,
    /// Messages answered in the window.
    pub count: usize,
    /// How long each took, in milliseconds.
    pub latencies: Vec<f64>,
}

impl Measured {
    /// Server CPU for each message, in microseconds.
    pub fn server_micros(&self) -> f64 {
        micros_each(self.usage.server, self.count)
    }

    /// Messages a second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.usage.wall.as_secs_f64()
    }
}

impl Flood {
    /// One sender for each target.
    pub async fn run(&self, targets: &[Target]) -> Result<Measured> {
        let (stop, latencies) = (&Cell::new(false), &RefCell::new(Vec::new()));
        let conns = Conn::open_all(self.address, targets.len()).await?;
        let senders = targets
            .iter()
            .zip(conns)
            .enumerate()
            .map(|(at, (target, mut conn))| async move {
                let body = message(&format!("sender {at} "));
                for number in 0usize.. {
                    if stop.get() {
                        break;
                    }
                    // Transaction ids of several floods in one room must differ.
                    let path = format!("{}{at}_{number}_{}", target.path, targets.len());
                    let start = Instant::now();
                    conn.ok("PUT", &path, &target.token, &body).await?;
                    latencies.borrow_mut().push(start.elapsed().as_secs_f64() * 1e3);
                }
                Ok::<_, Error>(())
            });
        let window = async {
            tokio::time::sleep(WARM_UP).await;
            latencies.borrow_mut().clear();
            let meter = Meter::start(self.pid)?;
            tokio::time::sleep(Duration::from_secs_f64(self.seconds)).await;
            let measured = (meter.stop()?, latencies.take());
            stop.set(true);
            Ok::<_, Error>(measured)
        };
        let (window, _) = futures::future::try_join(window, try_join_all(senders)).await?;
        Ok(Measured {
            usage: window.0,
            count: window.1.len(),
            latencies: window.1,
        })
    }
}

/// Runs the scenario; the highest rate.
pub async fn run(settings: &Settings, ceilings: &Ceilings, report: &mut Report) -> Result<f64> {
    let home = Home::new(settings)?;
    let (server, _) = home.start()?;
    let most = settings.senders.iter().copied().max().unwrap_or(1);
    let accounts = matrix::register_many(server.address, "sender", most).await?;
    let rooms = spread(server.address, most, async |conn: &mut Conn, at: usize| {
        matrix::create_room(conn, &accounts[at].token).await
    })
    .await?;
    let mut highest: f64 = 0.0;
    for &senders in &settings.senders {
        let accounts = &accounts[..senders];
        let shared = shared_room(server.address, accounts).await?;
        let flood = Flood {
            address: server.address,
            pid: server.pid(),
            seconds: settings.seconds,
        };
        let many: Vec<Target> = accounts
            .iter()
            .zip(&rooms)
            .map(|(account, room)| target(account, room))
            .collect();
        let one: Vec<Target> = accounts.iter().map(|account| target(account, &shared)).collect();
        let many = flood.run(&many).await?;
        add(report, ceilings, senders, "its own room each", &many);
        let one = flood.run(&one).await?;
        add(report, ceilings, senders, "one room", &one);
        highest = highest.max(many.rate()).max(one.rate());
        if senders > 1 {
            let share = one.rate() / many.rate() * 100.0;
            report.add(
                Row::new(
                    format!("one room of many rooms' rate, {senders} senders"),
                    share,
                    "%",
                )
                .at_least(60.0),
            );
        }
    }
    server.stop()?;
    Ok(highest)
}

/// A room that all of them are in.
async fn shared_room(address: SocketAddr, accounts: &[Account]) -> Result<String> {
    let mut conn = Conn::open(address).await?;
    let room = matrix::create_room(&mut conn, &accounts[0].token).await?;
    spread(address, accounts.len(), async |conn: &mut Conn, at: usize| {
        matrix::join(conn, &accounts[at].token, &room).await
    })
    .await?;
    Ok(room)
}

fn target(account: &Account, room: &str) -> Target {
    Target {
        path: send_target(room),
        token: account.token.clone(),
    }
}

fn add(report: &mut Report, ceilings: &Ceilings, senders: usize, place: &str, measured: &Measured) {
    let name = format!("{senders} senders, {place}");
    let (each, parts) = (measured.server_micros(), ceilings.send(senders));
    let client = micros_each(measured.usage.client, measured.count);
    let mut latencies = measured.latencies.clone();
    let (p50, p99) = (percentile(&mut latencies, 0.5), percentile(&mut latencies, 0.99));
    let row = Row::new(format!("CPU per send, {name}"), each, "µs CPU").ceiling(parts);
    let judged = senders == 64 || senders == 512;
    let row = if judged { row.at_most(2.0 * parts) } else { row };
    report.add(row.note(format!(
        "{:.2} times the parts; client {client:.0} µs",
        each / parts
    )));
    let row = Row::new(format!("sends, {name}"), measured.rate(), "/s").ceiling(ceilings.at(senders).commits);
    let others = measured.usage.others;
    let note = format!("answered in p50 {p50:.1}, p99 {p99:.1} ms; other work on {others:.2} processors");
    report.add(row.note(note));
    if judged {
        let possible = (PROCESSORS - others).max(0.1) * 1e6 / (each + client);
        let share = measured.rate() / possible * 100.0;
        let row = Row::new(format!("of what CPU allows, {name}"), share, "%").at_least(80.0);
        report.add(row.note("free processors ÷ (server + client CPU per send)"));
    }
}
