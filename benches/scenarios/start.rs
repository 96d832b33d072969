//! How long a start takes, and the memory of a server that nobody uses.

use std::time::Duration;

use crate::measure::{median, resident_bytes};
use crate::process::Home;
use crate::report::{Report, Row};
use crate::{Result, Settings};

/// Starts of each kind.
const STARTS: usize = 5;
/// Memory is looked at this long after the start.
const QUIET: Duration = Duration::from_secs(3);

/// Runs the scenario.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let (mut empty, mut again, mut memory) = (Vec::new(), Vec::new(), 0.0);
    for number in 0..STARTS {
        let home = Home::new(settings)?;
        let (server, taken) = home.start()?;
        empty.push(taken.as_secs_f64() * 1e3);
        server.stop()?;
        let (server, taken) = home.start()?;
        again.push(taken.as_secs_f64() * 1e3);
        if number == 0 {
            tokio::time::sleep(QUIET).await;
            memory = resident_bytes(server.pid())? / 1e6;
        }
        server.stop()?;
    }
    report.add(Row::new("ready on an empty folder", median(&mut empty), "ms").at_most(100.0));
    report.add(Row::new("ready after a restart", median(&mut again), "ms").at_most(100.0));
    report.add(Row::new("memory of an idle server", memory, "MB").at_most(50.0));
    Ok(())
}
