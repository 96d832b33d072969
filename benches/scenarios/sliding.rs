//! Both kinds of incremental sync for accounts in few and in many rooms of which one is active, and the first window of
//! sliding sync.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ceilings::Ceilings;
use crate::client::{Conn, encode};
use crate::matrix::{self, Account, message, send_target, spread};
use crate::measure::{Meter, median, micros_each};
use crate::process::Home;
use crate::report::{Report, Row};
use crate::{Result, Settings};

/// Where clients like Element X ask.
const PATH: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
/// Rooms of each account.
const ROOMS: [usize; 3] = [10, 1_000, 10_000];
/// Rooms of the first window.
const WINDOW: usize = 20;
/// Messages, each followed by a call, in a round.
const CALLS: usize = 200;
/// Rounds, taken in turns.
const ROUNDS: usize = 5;
/// First windows; the first one finds nothing in memory.
const FIRST: usize = 6;

/// An account that follows all its rooms.
struct Follower {
    account: Account,
    rooms: usize,
    active: String,
    pos: String,
    since: String,
}

/// Runs the scenario.
pub async fn run(settings: &Settings, ceilings: &Ceilings, report: &mut Report) -> Result<()> {
    let home = Home::new(settings)?;
    let (server, _) = home.start()?;
    let mut conn = Conn::open(server.address).await?;
    let mut followers = Vec::new();
    for rooms in ROOMS {
        let rooms = settings.count(rooms).max(ROOMS[0]);
        let account = matrix::register(&mut conn, &format!("slider{rooms}")).await?;
        let made = spread(server.address, rooms, async |conn: &mut Conn, _| {
            matrix::create_room(conn, &account.token).await
        })
        .await?;
        first_windows(&mut conn, server.pid(), &account, rooms, report).await?;
        let mut pos = slide(&mut conn, &account, None, rooms - 1).await?;
        pos = slide(&mut conn, &account, Some(&pos), rooms - 1).await?;
        let meter = Meter::start(server.pid())?;
        let since = matrix::sync_token(&mut conn, &account.token, None, None).await?;
        let usage = meter.stop()?;
        let note = format!("{:.0} ms CPU", usage.server.as_secs_f64() * 1e3);
        let wall = usage.wall.as_secs_f64() * 1e3;
        report.add(Row::new(format!("initial /sync, {rooms} rooms"), wall, "ms").note(note));
        followers.push(Follower {
            rooms,
            active: made.into_iter().next().unwrap_or_default(),
            pos,
            since,
            account,
        });
    }
    let mut sliding = vec![Vec::new(); followers.len()];
    let mut plain = sliding.clone();
    for round in 0..ROUNDS {
        for (at, follower) in followers.iter_mut().enumerate() {
            let (mut spent, mut spent_plain) = (0.0, 0.0);
            for number in 0..CALLS {
                let path = format!("{}{round}-{number}", send_target(&follower.active));
                conn.ok("PUT", &path, &follower.account.token, &message("news "))
                    .await?;
                let meter = Meter::start(server.pid())?;
                follower.pos = slide(
                    &mut conn,
                    &follower.account,
                    Some(&follower.pos),
                    follower.rooms - 1,
                )
                .await?;
                spent += micros_each(meter.stop()?.server, 1);
                let token = &follower.account.token;
                let meter = Meter::start(server.pid())?;
                follower.since = matrix::sync_token(&mut conn, token, Some(&follower.since), None).await?;
                spent_plain += micros_each(meter.stop()?.server, 1);
            }
            sliding[at].push(spent / CALLS as f64 / 1e3);
            plain[at].push(spent_plain / CALLS as f64 / 1e3);
        }
    }
    for (what, mut costs) in [("sliding sync", sliding), ("/sync", plain)] {
        let medians: Vec<f64> = costs.iter_mut().map(|costs| median(costs)).collect();
        for (each, follower) in medians.iter().zip(&followers) {
            let figure = format!("incremental {what}, one of {} rooms active", follower.rooms);
            report.add(Row::new(figure, *each, "ms CPU").ceiling(ceilings.at(1).echo / 1e3));
        }
        let ratio = medians[medians.len() - 1] / medians[0];
        report.add(
            Row::new(
                format!("incremental {what}, many rooms against few"),
                ratio,
                "times",
            )
            .at_most(1.5),
        );
    }
    server.stop()
}

/// How long the first window of a new connection takes.
async fn first_windows(
    conn: &mut Conn,
    pid: u32,
    account: &Account,
    rooms: usize,
    report: &mut Report,
) -> Result<()> {
    let mut walls = Vec::new();
    for _ in 0..FIRST {
        let meter = Meter::start(pid)?;
        slide(conn, account, None, WINDOW - 1).await?;
        walls.push(meter.stop()?.wall.as_secs_f64() * 1e3);
    }
    let name = format!("first window of {WINDOW} rooms, of {rooms}");
    report.add(Row::new(format!("{name}, nothing in memory"), walls[0], "ms"));
    report.add(Row::new(format!("{name}, warm"), median(&mut walls[1..]), "ms").at_most(50.0));
    Ok(())
}

/// One call for a window up to a place; the position to go on from.
async fn slide(conn: &mut Conn, account: &Account, pos: Option<&str>, last: usize) -> Result<String> {
    let on = json!({ "enabled": true });
    let body: Value = json!({
        "conn_id": "room-list",
        "lists": { "all_rooms": {
            "ranges": [[0, last]],
            "timeline_limit": 1,
            "required_state": [
                ["m.room.name", ""], ["m.room.encryption", ""], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"],
            ],
            "filters": { "not_room_types": ["m.space"] },
        } },
        "extensions": { "account_data": on, "receipts": on, "typing": on },
    });
    let target = match pos {
        Some(pos) => format!("{PATH}?timeout=0&pos={}", encode(pos)),
        None => PATH.to_owned(),
    };
    let answer = conn
        .ok("POST", &target, &account.token, body.to_string().as_bytes())
        .await?;
    #[derive(Deserialize)]
    struct Next {
        pos: String,
    }
    Ok(serde_json::from_slice::<Next>(answer)?.pos)
}
