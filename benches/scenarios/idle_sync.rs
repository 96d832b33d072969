//! An incremental sync that has nothing to tell, for an account in few and in many rooms.

use crate::ceilings::Ceilings;
use crate::client::Conn;
use crate::matrix::{self, Account, spread};
use crate::measure::{Meter, median, micros_each};
use crate::process::Home;
use crate::report::{Report, Row};
use crate::{Result, Settings};

/// Rooms of each account.
const ROOMS: [usize; 2] = [10, 5000];
/// Calls in a round.
const CALLS: usize = 2000;
/// Rooms that somebody else makes.
const OTHERS: usize = 200;
/// Rounds, taken in turns.
const ROUNDS: usize = 5;

/// Runs the scenario.
pub async fn run(settings: &Settings, ceilings: &Ceilings, report: &mut Report) -> Result<()> {
    let home = Home::new(settings)?;
    let (server, _) = home.start()?;
    let mut conn = Conn::open(server.address).await?;
    let sizes = [ROOMS[0], settings.count(ROOMS[1]).max(ROOMS[0])];
    let mut accounts = Vec::new();
    for rooms in sizes {
        let account = matrix::register(&mut conn, &format!("idle{rooms}")).await?;
        spread(server.address, rooms, async |conn: &mut Conn, _| {
            matrix::create_room(conn, &account.token).await.map(drop)
        })
        .await?;
        accounts.push(account);
    }
    let stranger = matrix::register(&mut conn, "stranger").await?;
    for (place, others) in [("nobody else active", 0), ("others active since", OTHERS)] {
        let tokens = tokens(&mut conn, &accounts).await?;
        // What others do moves the shards on: a token from before is behind, though it missed nothing.
        for _ in 0..others {
            matrix::create_room(&mut conn, &stranger.token).await?;
        }
        let mut costs = vec![Vec::new(); accounts.len()];
        for _ in 0..ROUNDS {
            for ((account, since), costs) in accounts.iter().zip(&tokens).zip(&mut costs) {
                let target = matrix::sync_target(Some(since), 0, None);
                let meter = Meter::start(server.pid())?;
                for _ in 0..CALLS {
                    conn.ok("GET", &target, &account.token, b"").await?;
                }
                costs.push(micros_each(meter.stop()?.server, CALLS) / 1e3);
            }
        }
        let medians: Vec<f64> = costs.iter_mut().map(|costs| median(costs)).collect();
        for (each, rooms) in medians.iter().zip(sizes) {
            let row = Row::new(
                format!("empty incremental sync, {rooms} rooms, {place}"),
                *each,
                "ms CPU",
            );
            let row = row.ceiling(ceilings.at(1).echo / 1e3).at_most(0.1);
            report.add(row.note("one call at a time; the ceiling is one echo"));
        }
        let ratio = medians[1] / medians[0];
        report.add(
            Row::new(
                format!("empty incremental sync, many rooms against few, {place}"),
                ratio,
                "times",
            )
            .at_most(1.25),
        );
    }
    server.stop()
}

/// Tokens after which there is nothing to tell.
async fn tokens(conn: &mut Conn, accounts: &[Account]) -> Result<Vec<String>> {
    let mut tokens = Vec::new();
    for account in accounts {
        let mut since = matrix::sync_token(conn, &account.token, None, None).await?;
        // What the first call itself brought about, such as presence, is seen now.
        for _ in 0..3 {
            since = matrix::sync_token(conn, &account.token, Some(&since), None).await?;
        }
        tokens.push(since);
    }
    Ok(tokens)
}
