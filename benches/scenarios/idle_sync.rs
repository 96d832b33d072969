//! An incremental sync that has nothing to tell, for an account in few and in many rooms.

use crate::ceilings::Ceilings;
use crate::client::Conn;
use crate::matrix::{self, spread};
use crate::measure::{Meter, median, micros_each};
use crate::process::Home;
use crate::report::{Report, Row};
use crate::{Result, Settings};

/// Rooms of each account.
const ROOMS: [usize; 2] = [10, 5000];
/// Calls in a round.
const CALLS: usize = 2000;
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
        let mut since = matrix::sync_token(&mut conn, &account.token, None, None).await?;
        // What the first call itself brought about, such as presence, is seen now.
        for _ in 0..3 {
            since = matrix::sync_token(&mut conn, &account.token, Some(&since), None).await?;
        }
        accounts.push((account, since, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (account, since, costs) in &mut accounts {
            let target = matrix::sync_target(Some(since), 0, None);
            let meter = Meter::start(server.pid())?;
            for _ in 0..CALLS {
                conn.ok("GET", &target, &account.token, b"").await?;
            }
            costs.push(micros_each(meter.stop()?.server, CALLS) / 1e3);
        }
    }
    let mut medians = Vec::new();
    for ((_, _, costs), rooms) in accounts.iter_mut().zip(sizes) {
        let each = median(costs);
        medians.push(each);
        let row = Row::new(format!("empty incremental sync, {rooms} rooms"), each, "ms CPU");
        report.add(
            row.ceiling(ceilings.at(1).echo / 1e3)
                .at_most(0.1)
                .note("the ceiling is one echo"),
        );
    }
    let ratio = medians[1] / medians[0];
    report.add(Row::new("empty incremental sync, many rooms against few", ratio, "times").at_most(1.25));
    server.stop()
}
