//! The real binary as a process on RocksDB.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use crate::{Client, Endpoint};

/// A server that is not ready after this long will not be.
const READY_MAX: Duration = Duration::from_secs(60);

/// How often readiness is looked at.
const READY_POLL: Duration = Duration::from_millis(5);

/// A server process; it is killed when it is dropped.
pub struct TestProcess {
    folder: TempDir,
    binary: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl TestProcess {
    /// The binary: `HEARTH_BINARY`, or `hearth` in the folder where Cargo put this test's own.
    pub fn binary() -> Option<PathBuf> {
        if let Some(given) = std::env::var_os("HEARTH_BINARY") {
            return Some(PathBuf::from(given));
        }
        let own = std::env::current_exe().ok()?;
        let mut folders = own.ancestors().skip(1).take(2);
        folders.find_map(|folder| Some(folder.join("hearth")).filter(|path| path.is_file()))
    }

    /// Starts the binary on an empty folder and waits until it is ready.
    pub async fn start(binary: PathBuf) -> Self {
        Self::start_with(binary, "").await
    }

    /// The same with more settings, as lines of the configuration file.
    pub async fn start_with(binary: PathBuf, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let config = format!(
            "server_name = \"hs1\"\ndata_dir = {:?}\nclient_listen = \"{address}\"\nregistration = \"open\"\n\
             rate_limits = false\n{settings}\n",
            folder.path().join("data")
        );
        std::fs::write(folder.path().join("hearth.toml"), config).expect("the configuration is written");
        let mut process = Self {
            folder,
            binary,
            address,
            child: None,
        };
        process.spawn().await;
        process
    }

    /// Kills the process with no warning (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Kills the process and starts it again on the same folder.
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn().await;
    }

    /// Where it answers.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Address(self.address)
    }

    /// A new account with its first device.
    pub async fn register(&self, name: &str) -> Client {
        Client::register(&self.endpoint(), name).await
    }

    async fn spawn(&mut self) {
        let path = self.folder.path();
        let log = File::options()
            .create(true)
            .append(true)
            .open(path.join("log"))
            .expect("a log file");
        let child = Command::new(&self.binary)
            .arg("--config")
            .arg(path.join("hearth.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file twice"))
            .stderr(log)
            .spawn();
        let child =
            child.unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.binary.display()));
        let child = self.child.insert(child);
        let begun = Instant::now();
        let endpoint = Endpoint::Address(self.address);
        loop {
            let answer = endpoint
                .try_call("GET", "/_hearth/health/ready", None, Bytes::new())
                .await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                return;
            }
            let ended = child.try_wait().expect("the process can be asked");
            if ended.is_some() || begun.elapsed() > READY_MAX {
                let log = std::fs::read_to_string(path.join("log")).unwrap_or_default();
                panic!("the server is not ready (ended: {ended:?}); its log:\n{log}");
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
