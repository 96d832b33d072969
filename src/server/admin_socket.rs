//! The admin socket: how `hearth user` reaches a server that runs, since only one process can have the data open.
//!
//! It lies in the data directory, and only the server's own user may connect. The command sends one line of JSON, a
//! [`Request`], and gets one back, an [`Outcome`]. Both ends are the same program: it is no interface for others.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hearth_core::Shutdown;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use crate::Error;
use crate::cli::UserTask;
use crate::wiring::Accounts;

/// The longest request: a name and a password, both bounded, written as JSON.
const REQUEST_MAX_BYTES: u64 = 16 << 10;

/// A request is there at once: the command has everything before it connects.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Commands that wait for their turn.
const WAITING_MAX: u32 = 16;

/// After a failed accept (too many open files) it waits before it tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a command asks.
#[derive(Serialize, Deserialize)]
pub struct Request {
    /// Whose account: "alice" or "@alice:example.org".
    pub name: String,
    /// What is to be done with it.
    pub task: UserTask,
}

/// What came of it, as the command says it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Done(String),
    Refused(String),
}

/// The server's end. The file goes with it.
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Opens the socket. The data must be open already: then whoever listened here before is gone.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        remove(&path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(&path)?;
        // While it does not listen, nobody can connect.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let listener = socket.listen(WAITING_MAX)?;
        Ok(Self { listener, path })
    }

    /// Does what commands ask, one after the other, until the server stops.
    pub async fn serve(self, accounts: Accounts, shutdown: Shutdown) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.wait() => return,
                accepted = self.listener.accept() => accepted,
            };
            let outcome = match accepted {
                Ok((stream, _)) => answer(stream, &accounts).await,
                Err(error) => {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    Err(error)
                }
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "a command on the admin socket could not be answered");
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::debug!(%error, "the admin socket could not be removed");
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn answer(mut stream: UnixStream, accounts: &Accounts) -> io::Result<()> {
    let (from, mut to) = stream.split();
    let mut line = String::new();
    let mut reader = BufReader::new(from.take(REQUEST_MAX_BYTES));
    tokio::time::timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await??;
    let outcome = match serde_json::from_str::<Request>(&line) {
        Ok(Request { name, task }) => {
            tracing::info!(user = name, task = task.name(), "a command on the admin socket");
            match accounts.run(&name, task).await {
                Ok(said) => Outcome::Done(said),
                Err(error) => Outcome::Refused(error.to_string()),
            }
        }
        Err(_) => {
            Outcome::Refused("the server that runs is of another version and does not know this".to_owned())
        }
    };
    let mut line = serde_json::to_vec(&outcome)?;
    line.push(b'\n');
    to.write_all(&line).await
}

/// Gives a request to the server that has the data open, and gives back what it says; nothing where none runs, or where
/// it stops before the command has its turn.
pub async fn ask(path: &Path, request: &Request) -> Result<Option<String>, Error> {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, InvalidInput, NotFound};
    let failed = |error: io::Error| {
        let path = path.display();
        Error::Command(format!("the running server cannot be asked on {path}: {error}"))
    };
    let mut stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        // A crash leaves the file; where the path is too long for a socket, the server has none.
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused | InvalidInput) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    let mut answer = String::new();
    let answered = match stream.write_all(&line).await {
        Ok(()) => stream.read_to_string(&mut answer).await.map(drop),
        Err(error) => Err(error),
    };
    match answered {
        Ok(()) if answer.is_empty() => return Ok(None),
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => return Ok(None),
        answered => answered.map_err(failed)?,
    }
    match serde_json::from_str(&answer) {
        Ok(Outcome::Done(said)) => Ok(Some(said)),
        Ok(Outcome::Refused(why)) => Err(Error::Command(why)),
        Err(error) => Err(failed(error.into())),
    }
}
