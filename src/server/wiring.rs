//! Builds the parts of a server out of its configuration and its outside world. The one place that
//! names all other crates; each part is made in one function, in the order of the layers.

use std::sync::Arc;

use axum::Router;
use hearth_core::clock::SystemClock;
use hearth_core::config::Api;
use hearth_core::http::{NoOutbound, SharedOutbound};
use hearth_core::random::OsRandom;
use hearth_core::{Config, Pool, SharedClock, SharedRandom, Shutdown};
use hearth_storage::{Engine, Log, LogOptions, MemoryEngine, RocksEngine, RocksOptions, WriterMode};
use parking_lot::Mutex;

use crate::Error;
use crate::cli::UserTask;
use crate::outbound::HttpOutbound;
use crate::pages::Facts;

/// The outside world of a server. Tests and simulations bring their own.
pub struct Deps {
    /// The time.
    pub clock: SharedClock,
    /// Random bytes.
    pub random: SharedRandom,
    /// Requests to other machines.
    pub outbound: SharedOutbound,
    /// Where data is kept.
    pub engine: Arc<dyn Engine>,
    /// Threads for sections that block.
    pub pool: Pool,
    /// Who writes the log.
    pub writer: WriterMode,
}

impl Deps {
    /// The real world: the machine's clock and entropy, the network, RocksDB in the data directory.
    pub fn production(config: &Config) -> Result<Self, Error> {
        let folder = config.database_dir();
        let unusable = |reason: String| Error::Data { folder: folder.display().to_string(), reason };
        create_private_folder(&config.data_dir).map_err(|error| unusable(error.to_string()))?;
        create_private_folder(&folder).map_err(|error| unusable(error.to_string()))?;
        let options = RocksOptions {
            memory_limit_bytes: usize::try_from(config.memory_limit).unwrap_or(usize::MAX),
        };
        let engine = RocksEngine::open(&folder, options).map_err(|error| {
            let hint = if error.to_string().contains("lock") { " (is a server running on it?)" } else { "" };
            unusable(format!("{error}{hint}"))
        })?;
        Ok(Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            outbound: Arc::new(HttpOutbound::new(config)?),
            engine: Arc::new(engine),
            pool: Pool::new(blocking_threads()),
            writer: WriterMode::Thread,
        })
    }

    /// A world of memory that reaches nobody, for tests.
    pub fn for_tests() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            outbound: Arc::new(NoOutbound),
            engine: Arc::new(MemoryEngine::new()),
            pool: Pool::new(2),
            writer: WriterMode::Thread,
        }
    }
}

/// The data has password hashes and the signing key, so that other users of the machine get no access
/// to a folder made here. One that exists is left as it is.
fn create_private_folder(folder: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// One for each processor: hashing and image work are bound by it, and two keep a small machine from
/// standing still behind one slow read.
fn blocking_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |threads| threads.get().max(2))
}

/// All parts of one server.
pub struct Parts {
    config: Arc<Config>,
    log: Arc<Log>,
    /// Why the log stopped for good, if it did.
    fatal: Arc<Mutex<Option<String>>>,
    shutdown: Shutdown,
}

impl Parts {
    /// Builds everything. Nothing runs yet but the log's writer.
    pub fn build(config: &Arc<Config>, deps: Deps, shutdown: &Shutdown) -> Result<Self, Error> {
        let fatal = Arc::new(Mutex::new(None));
        let log = open_log(config, &deps, shutdown, &fatal)?;
        Ok(Self { config: config.clone(), log, fatal, shutdown: shutdown.clone() })
    }

    /// Starts what runs by itself: outbox delivery, feed consumers, timers.
    pub fn start(&self) {}

    /// The routes of all APIs on a listener.
    pub fn router(&self, _apis: &[Api]) -> Router {
        let _ = &self.config;
        Router::new()
    }

    /// The token with which the first user becomes administrator, as long as there is no user.
    pub async fn first_token(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Does what `hearth user` asks and gives a sentence about it.
    pub async fn user_task(&self, _name: &str, _task: UserTask) -> Result<String, Error> {
        Err(Error::Command("accounts are not wired yet".to_owned()))
    }

    /// Finishes what was begun and closes the data.
    pub fn close(&self) {
        self.log.close();
        if let Err(error) = self.log.engine().flush() {
            tracing::warn!(%error, "the last flush failed; the next start reads the write-ahead log instead");
        }
    }

    /// Why the server had to stop, if its data could not be written.
    pub fn fatal(&self) -> Option<String> {
        self.fatal.lock().clone()
    }

    /// What the server's own pages ask.
    pub fn facts(&self) -> Arc<dyn Facts> {
        Arc::new(PageFacts { log: self.log.clone(), shutdown: self.shutdown.clone() })
    }
}

fn open_log(
    config: &Config,
    deps: &Deps,
    shutdown: &Shutdown,
    fatal: &Arc<Mutex<Option<String>>>,
) -> Result<Arc<Log>, Error> {
    let options = LogOptions {
        shards_if_new: config.shards,
        disk_reserve_bytes: config.disk_reserve_bytes,
        mode: deps.writer,
        ..LogOptions::default()
    };
    let log = Log::open_with(deps.engine.clone(), options).map_err(|error| Error::Data {
        folder: config.data_dir.display().to_string(),
        reason: error.to_string(),
    })?;
    let (fatal, shutdown) = (fatal.clone(), shutdown.clone());
    log.on_fatal(Box::new(move |error| {
        tracing::error!(%error, "the data cannot be written, the server stops");
        *fatal.lock() = Some(error.to_string());
        shutdown.trigger();
    }));
    Ok(log)
}

struct PageFacts {
    log: Arc<Log>,
    shutdown: Shutdown,
}

impl Facts for PageFacts {
    fn ready(&self) -> bool {
        // A full disk is no reason to send clients elsewhere: they can still read.
        !self.shutdown.is_triggered() && !matches!(self.log.check_writable(), Err(hearth_storage::Error::Stopped))
    }

    fn storage_bytes(&self) -> Option<u64> {
        Some(self.log.engine().usage_bytes())
    }
}
