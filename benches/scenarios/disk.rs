//! Bytes on disk per message: the table files after the server has stopped, and after compaction.

use std::path::{Path, PathBuf};

use hearth_storage::{Engine as _, Family, RocksEngine, RocksOptions};

use crate::client::Conn;
use crate::matrix::{self, message, send_target, spread};
use crate::process::{Home, table_bytes};
use crate::report::{Report, Row};
use crate::{Result, Settings};

/// Messages.
const MESSAGES: usize = 50_000;
/// Rooms they are in.
const ROOMS: usize = 16;

/// Runs the scenario.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let home = Home::new(settings)?;
    let (server, _) = home.start()?;
    let account = matrix::register(&mut Conn::open(server.address).await?, "writer").await?;
    let rooms = spread(server.address, ROOMS, async |conn: &mut Conn, _| {
        matrix::create_room(conn, &account.token).await
    })
    .await?;
    server.stop()?;
    let database = database(&home.data())?;
    compact(&database)?;
    let before = table_bytes(&database)?;

    let messages = settings.count(MESSAGES);
    let (server, _) = home.start()?;
    spread(server.address, messages, async |conn: &mut Conn, at: usize| {
        let path = format!("{}{at}", send_target(&rooms[at % ROOMS]));
        conn.ok("PUT", &path, &account.token, &message(&words(at)))
            .await
            .map(drop)
    })
    .await?;
    server.stop()?;
    let flushed = table_bytes(&database)?;
    compact(&database)?;
    let compacted = table_bytes(&database)?;
    let each = |bytes: u64| bytes.saturating_sub(before) as f64 / messages as f64;
    let row = Row::new("disk per message after flush", each(flushed), "bytes");
    report.add(row.note(format!("{messages} messages, without the log")));
    report.add(Row::new("disk per message after compaction", each(compacted), "bytes").at_most(600.0));
    Ok(())
}

/// A hundred bytes of words that differ from message to message: one text over and over would compress to nothing.
fn words(at: usize) -> String {
    const WORDS: [&str; 16] = [
        "we", "meet", "tomorrow", "at", "the", "station", "before", "lunch", "and", "walk", "along", "river",
        "if", "weather", "stays", "fine",
    ];
    let mut state = at as u64 + 1;
    let mut out = String::new();
    while out.len() < 88 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        out.push_str(WORDS[(state >> 60) as usize]);
        out.push(' ');
    }
    out.truncate(matrix::TEXT_BYTES);
    out
}

/// The folder of the table files.
fn database(data: &Path) -> Result<PathBuf> {
    for entry in std::fs::read_dir(data)? {
        let path = entry?.path();
        if path.join("CURRENT").exists() {
            return Ok(path);
        }
    }
    Err("there is no database".into())
}

fn compact(database: &Path) -> Result<()> {
    let engine = RocksEngine::open(database, RocksOptions::default())?;
    engine.flush()?;
    for family in Family::ALL {
        engine.compact(*family, &[], &[0xFF; 32])?;
    }
    Ok(())
}
