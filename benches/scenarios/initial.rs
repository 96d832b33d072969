//! The initial sync of an account in many rooms.

use std::time::Duration;

use crate::client::Conn;
use crate::matrix::{self, message, send_target, spread};
use crate::measure::{Meter, median};
use crate::process::Home;
use crate::report::{Report, Row};
use crate::{Result, Settings};

/// Rooms of the account.
const ROOMS: usize = 300;
/// Messages in each.
const MESSAGES: usize = 10;
/// Calls; the first one finds nothing in memory.
const CALLS: usize = 6;

/// Runs the scenario.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let home = Home::new(settings)?;
    let (server, _) = home.start()?;
    let rooms = settings.count(ROOMS);
    let account = matrix::register(&mut Conn::open(server.address).await?, "reader").await?;
    spread(server.address, rooms, async |conn: &mut Conn, _| {
        let room = matrix::create_room(conn, &account.token).await?;
        for number in 0..MESSAGES {
            let path = format!("{}{number}", send_target(&room));
            conn.ok("PUT", &path, &account.token, &message("history "))
                .await?;
        }
        Ok(())
    })
    .await?;
    // The first call after a restart reads from disk.
    server.stop()?;
    let (server, _) = home.start()?;
    let mut conn = Conn::open(server.address).await?;
    let (mut walls, mut processors, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..CALLS {
        let meter = Meter::start(server.pid())?;
        bytes = conn
            .ok("GET", &matrix::sync_target(None, 0, None), &account.token, b"")
            .await?
            .len();
        let usage = meter.stop()?;
        walls.push(usage.wall.as_secs_f64() * 1e3);
        processors.push(usage.server.as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let name = format!("initial sync, {rooms} rooms");
    report.add(Row::new(format!("{name}, after a restart"), walls[0], "ms").note(format!("{bytes} bytes")));
    report.add(Row::new(
        format!("{name}, after a restart"),
        processors[0],
        "ms CPU",
    ));
    report.add(Row::new(format!("{name}, again"), median(&mut walls[1..]), "ms"));
    report.add(Row::new(
        format!("{name}, again"),
        median(&mut processors[1..]),
        "ms CPU",
    ));
    server.stop()
}
