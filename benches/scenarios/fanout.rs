//! One message to many waiting syncs: server CPU for each delivery, with the receiver's next call.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures::future::try_join_all;

use crate::ceilings::Ceilings;
use crate::client::Conn;
use crate::matrix::{self, message, send_target};
use crate::measure::{Meter, median, micros_each};
use crate::process::Home;
use crate::report::{Report, Row};
use crate::{Error, Result, Settings};

/// Who waits.
const RECEIVERS: usize = 200;
/// Messages.
const ROUNDS: usize = 40;
/// After a round all receivers wait again.
const PAUSE: Duration = Duration::from_millis(60);
/// A message that is not everywhere after this is lost.
const DELIVERY_MAX: Duration = Duration::from_secs(10);

/// Runs the scenario.
pub async fn run(settings: &Settings, ceilings: &Ceilings, report: &mut Report) -> Result<()> {
    let home = Home::new(settings)?;
    let (server, _) = home.start()?;
    let receivers = settings.count(RECEIVERS);
    let accounts = matrix::register_many(server.address, "member", receivers + 1).await?;
    let mut conn = Conn::open(server.address).await?;
    let (sender, members) = accounts.split_first().ok_or("nobody")?;
    let room = matrix::create_room(&mut conn, &sender.token).await?;
    matrix::spread(server.address, receivers, async |conn: &mut Conn, at: usize| {
        matrix::join(conn, &members[at].token, &room).await
    })
    .await?;
    let seen = Cell::new(0usize);
    let (stop, _) = tokio::sync::watch::channel(false);
    let (seen, stop) = (&seen, &stop);
    let conns = Conn::open_all(server.address, receivers).await?;
    let waiting = try_join_all(members.iter().zip(conns).map(|(member, mut conn)| async move {
        let mut since = matrix::sync_token(&mut conn, &member.token, None, None).await?;
        let mut stop = stop.subscribe();
        loop {
            let target = matrix::sync_target(Some(&since), 30_000, None);
            let answer = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok::<_, Error>(()),
                answer = conn.ok("GET", &target, &member.token, b"") => answer?,
            };
            let (next, texts) = matrix::read_sync(answer)?;
            since = next;
            seen.set(seen.get() + texts.len());
        }
    }));
    let sending = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        seen.set(0);
        let mut last = Vec::new();
        let meter = Meter::start(server.pid())?;
        for round in 1..=ROUNDS {
            let start = Instant::now();
            let path = format!("{}{round}", send_target(&room));
            conn.ok("PUT", &path, &sender.token, &message("to all ")).await?;
            while seen.get() < round * receivers {
                if start.elapsed() > DELIVERY_MAX {
                    return Err(format!("{} of {} deliveries", seen.get(), round * receivers).into());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            last.push(start.elapsed().as_secs_f64() * 1e3);
            tokio::time::sleep(PAUSE).await;
        }
        let usage = meter.stop()?;
        stop.send_replace(true);
        Ok((usage, last))
    };
    let ((usage, mut last), _) = futures::future::try_join(sending, waiting).await?;
    let each = micros_each(usage.server, ROUNDS * receivers);
    let row = Row::new(
        format!("CPU per delivery to {receivers} waiting syncs"),
        each,
        "µs CPU",
    );
    report.add(
        row.ceiling(ceilings.at(64).echo)
            .note("with the receiver's next call; the ceiling is one echo"),
    );
    report.add(Row::new(
        "until the last of them has it, median",
        median(&mut last),
        "ms",
    ));
    server.stop()
}
