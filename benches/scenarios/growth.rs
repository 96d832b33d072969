//! The cost of one send and of one join in small and in large rooms. Users come from the application service, so
//! that no password is hashed; rounds are interleaved, and the median counts.

use std::net::SocketAddr;

use crate::client::Conn;
use crate::matrix::{self, Account, message, send_target, spread, spread_over};
use crate::measure::{Meter, median, micros_each};
use crate::process::Home;
use crate::report::{Report, Row};
use crate::{Result, Settings};

/// Local members of the rooms.
const MEMBERS: [usize; 5] = [10, 500, 1_000, 5_000, 20_000];
/// Those of them who send, and the connections over which it is measured.
const SENDERS: usize = 10;
/// Users who join and leave in each round.
const JOINERS: usize = 200;
/// Messages in each round.
const SENDS: usize = 1000;
/// Rounds.
const ROUNDS: usize = 5;
/// How much more the largest room may cost, for it to be called equal.
const EQUAL: f64 = 1.25;
/// How much slower sends into the room with 5,000 members may be than into that with 10.
const RATES: f64 = 1.3;

struct Room {
    id: String,
    members: usize,
    sends: Vec<f64>,
    joins: Vec<f64>,
    /// Sends a second.
    rates: Vec<f64>,
}

/// Runs the scenario.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let home = Home::new(settings)?;
    let (server, _) = home.start()?;
    let (address, pid) = (server.address, server.pid());
    let (mut rooms, senders, joiners) = prepare(settings, address).await?;
    for round in 0..ROUNDS {
        for room in &mut rooms {
            let meter = Meter::start(pid)?;
            send(address, &senders, room, round).await?;
            let usage = meter.stop()?;
            room.sends.push(micros_each(usage.server, SENDS));
            room.rates.push(SENDS as f64 / usage.wall.as_secs_f64());
            let meter = Meter::start(pid)?;
            change(address, "join", &joiners, room).await?;
            room.joins.push(micros_each(meter.stop()?.server, joiners.len()));
            change(address, "leave", &joiners, room).await?;
        }
    }
    let mut rates = Vec::new();
    for room in &mut rooms {
        let rate = median(&mut room.rates);
        rates.push(rate);
        let figure = format!(
            "sends into one room, {} local members, {SENDERS} senders",
            room.members
        );
        report.add(Row::new(figure, rate, "/s"));
    }
    let name = "sends a second, 10 local members against 5,000";
    report.add(Row::new(name, rates[0] / rates[3], "times").at_most(RATES));
    for (what, pick) in [("send", 0), ("join", 1)] {
        let mut medians = Vec::new();
        for room in &mut rooms {
            let each = median(if pick == 0 {
                &mut room.sends
            } else {
                &mut room.joins
            });
            medians.push(each);
            report.add(Row::new(
                format!("one {what}, {} local members", room.members),
                each,
                "µs CPU",
            ));
        }
        let ratio = medians[medians.len() - 1] / medians[0];
        report.add(
            Row::new(
                format!("one {what}, largest room against smallest"),
                ratio,
                "times",
            )
            .at_most(EQUAL),
        );
    }
    server.stop()
}

async fn prepare(settings: &Settings, address: SocketAddr) -> Result<(Vec<Room>, Vec<Account>, Vec<String>)> {
    let senders = matrix::register_many(address, "sender", SENDERS).await?;
    let sizes: Vec<usize> = MEMBERS
        .iter()
        .map(|members| settings.count(*members).max(SENDERS))
        .collect();
    let most = sizes.iter().copied().max().unwrap_or(SENDERS);
    let members = spread(address, most - SENDERS, async |conn: &mut Conn, at: usize| {
        matrix::register_bare(conn, &format!("member{at}")).await
    })
    .await?;
    let joiners = spread(address, JOINERS, async |conn: &mut Conn, at: usize| {
        matrix::register_bare(conn, &format!("joiner{at}")).await
    })
    .await?;
    let mut conn = Conn::open(address).await?;
    let mut rooms = Vec::new();
    for size in sizes {
        let id = matrix::create_room(&mut conn, &senders[0].token).await?;
        for sender in &senders[1..] {
            matrix::join(&mut conn, &sender.token, &id).await?;
        }
        spread(address, size - SENDERS, async |conn: &mut Conn, at: usize| {
            matrix::member_as(conn, "join", &members[at], &id).await
        })
        .await?;
        rooms.push(Room {
            id,
            members: size,
            sends: Vec::new(),
            joins: Vec::new(),
            rates: Vec::new(),
        });
    }
    Ok((rooms, senders, joiners))
}

async fn send(address: SocketAddr, senders: &[Account], room: &Room, round: usize) -> Result<()> {
    let (target, body) = (send_target(&room.id), message("growth "));
    spread_over(address, SENDERS, SENDS, async |conn: &mut Conn, at: usize| {
        let path = format!("{target}{round}_{at}");
        conn.ok("PUT", &path, &senders[at % SENDERS].token, &body)
            .await
            .map(drop)
    })
    .await?;
    Ok(())
}

async fn change(address: SocketAddr, verb: &str, users: &[String], room: &Room) -> Result<()> {
    spread_over(
        address,
        SENDERS,
        users.len(),
        async |conn: &mut Conn, at: usize| matrix::member_as(conn, verb, &users[at], &room.id).await,
    )
    .await?;
    Ok(())
}
