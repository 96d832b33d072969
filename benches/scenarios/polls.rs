//! Memory of idle sync connections, beside that of bare long polls.

use std::time::Duration;

use futures::future::try_join_all;

use crate::client::Conn;
use crate::matrix::{self, spread};
use crate::measure::resident_bytes;
use crate::process::{Home, Running, start_echo};
use crate::report::{Report, Row};
use crate::{Error, Result, Settings};

/// Connections.
const CONNECTIONS: usize = 1000;
/// Memory is looked at when nothing has happened for so long.
const QUIET: Duration = Duration::from_secs(3);

/// Runs the scenario.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let connections = settings.count(CONNECTIONS);
    let echo = start_echo()?;
    let bare = memory_each(
        &echo,
        &vec![("/_matrix/client/v3/sync?timeout=1".to_owned(), String::new()); connections],
    )
    .await?;
    drop(echo);

    let home = Home::new(settings)?;
    let (server, _) = home.start()?;
    let accounts = matrix::register_many(server.address, "waiting", connections).await?;
    let mut conn = Conn::open(server.address).await?;
    let room = matrix::create_room(&mut conn, &accounts[0].token).await?;
    let polls = spread(server.address, connections, async |conn: &mut Conn, at: usize| {
        let token = accounts[at].token.clone();
        matrix::join(conn, &token, &room).await?;
        Ok(token)
    })
    .await?;
    let polls = spread(server.address, connections, async |conn: &mut Conn, at: usize| {
        let mut since = matrix::sync_token(conn, &polls[at], None, None).await?;
        since = matrix::sync_token(conn, &polls[at], Some(&since), None).await?;
        Ok((since, polls[at].clone()))
    })
    .await?;
    // In a new process nothing is in memory yet, so that all that the connections bring there is counted.
    server.stop()?;
    let (server, _) = home.start()?;
    let polls: Vec<_> = polls
        .into_iter()
        .map(|(since, token)| {
            (
                format!(
                    "{}&set_presence=offline",
                    matrix::sync_target(Some(&since), 600_000, None)
                ),
                token,
            )
        })
        .collect();
    let each = memory_each(&server, &polls).await?;
    let row = Row::new(
        format!("memory per idle sync connection, {connections} of them"),
        each / 1e3,
        "kB",
    );
    report.add(
        row.ceiling(bare / 1e3)
            .at_most(3.0 * bare / 1e3)
            .note("the ceiling is a bare long poll; a user and its token each"),
    );
    server.stop()
}

/// The resident memory that each waiting connection adds.
async fn memory_each(process: &Running, polls: &[(String, String)]) -> Result<f64> {
    tokio::time::sleep(QUIET).await;
    let before = resident_bytes(process.pid())?;
    let answers = std::cell::Cell::new(0usize);
    let answers = &answers;
    let conns = Conn::open_all(process.address, polls.len()).await?;
    let waiting = try_join_all(
        polls
            .iter()
            .zip(conns)
            .map(|((target, token), mut conn)| async move {
                loop {
                    // What comes all the same is asked for again, a little.
                    conn.ok("GET", target, token, b"").await?;
                    answers.set(answers.get() + 1);
                    if answers.get() > polls.len() {
                        return Err::<(), Error>("long polls do not wait".into());
                    }
                }
            }),
    );
    let look = async {
        tokio::time::sleep(QUIET * 2).await;
        resident_bytes(process.pid())
    };
    let after = tokio::select! {
        biased;
        after = look => after?,
        ended = waiting => return Err(ended.err().unwrap_or_else(|| "nobody waits".into())),
    };
    Ok((after - before) / polls.len() as f64)
}
