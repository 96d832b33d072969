//! The processes that are measured: the server on a folder of its own, and the echo ceiling.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Result, Settings};

/// A server that is not ready after this long will not be.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long a server may take to stop.
const STOP_MAX: Duration = Duration::from_secs(60);
/// How often readiness is looked at: short beside what is measured.
const READY_POLL: Duration = Duration::from_micros(300);

/// The token of the application service that creates the users.
pub const APPSERVICE_TOKEN: &str = "load-program";

/// A folder in which a server lives, over several starts.
pub struct Home {
    folder: TempDir,
    address: SocketAddr,
    binary: PathBuf,
    log: PathBuf,
}

/// A running process; killed when it is dropped.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Home {
    /// A new folder with a configuration: open, without limits, and with an application service.
    pub fn new(settings: &Settings) -> Result<Self> {
        let folder = temporary(settings)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let path = folder.path();
        std::fs::create_dir(path.join("appservices"))?;
        std::fs::write(
            path.join("appservices/load.yaml"),
            format!(
                "id: load\nurl: null\nas_token: {APPSERVICE_TOKEN}\nhs_token: unused\nsender_localpart: load\n\
                 rate_limited: false\nnamespaces:\n  users:\n    - exclusive: false\n      regex: \"@.*\"\n"
            ),
        )?;
        let text = format!(
            "server_name = \"localhost\"\ndata_dir = {:?}\nclient_listen = \"{address}\"\n\
             registration = \"open\"\nrate_limits = false\nappservice_dir = {:?}\n",
            path.join("data"),
            path.join("appservices"),
        );
        std::fs::write(path.join("hearth.toml"), text)?;
        let log = settings.server_log.clone().unwrap_or_else(|| path.join("log"));
        Ok(Self {
            binary: settings.server.clone(),
            folder,
            address,
            log,
        })
    }

    /// Where the server keeps its data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server and waits until it is ready; says how long that took.
    pub fn start(&self) -> Result<(Running, Duration)> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let start = Instant::now();
        let child = Command::new(&self.binary)
            .arg("--config")
            .arg(self.folder.path().join("hearth.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", self.binary.display()))?;
        let mut running = Running {
            child,
            address: self.address,
        };
        while !is_ready(self.address) {
            if start.elapsed() > READY_MAX || running.child.try_wait()?.is_some() {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("the server is not ready: {log}").into());
            }
            std::thread::sleep(READY_POLL);
        }
        Ok((running, start.elapsed()))
    }
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(
            b"GET /_hearth/health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        )?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

impl Running {
    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop and waits for an orderly end.
    pub fn stop(mut self) -> Result<()> {
        Command::new("kill")
            .arg("-TERM")
            .arg(self.pid().to_string())
            .status()?;
        let start = Instant::now();
        while start.elapsed() < STOP_MAX {
            if let Some(status) = self.child.try_wait()? {
                return if status.success() {
                    Ok(())
                } else {
                    Err(format!("it ended with {status}").into())
                };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("it does not stop".into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the echo ceiling, which prints its address.
pub fn start_echo() -> Result<Running> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("echo")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let output = child.stdout.take().ok_or("no output")?;
    BufReader::new(output).read_line(&mut line)?;
    Ok(Running {
        child,
        address: line.trim().parse()?,
    })
}

/// A folder for data, removed when it is dropped.
pub fn temporary(settings: &Settings) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("hearth-load-");
    Ok(match &settings.folder {
        Some(folder) => builder.tempdir_in(folder)?,
        None => builder.tempdir()?,
    })
}

/// The bytes of the table files in a folder and below; the write-ahead log is not among them.
pub fn table_bytes(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if path.is_dir() {
            total += table_bytes(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "sst") {
            total += entry.metadata()?.len();
        }
    }
    Ok(total)
}
