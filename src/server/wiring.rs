//! Builds the parts of a server out of its configuration and its outside world. The one place that
//! names all other crates; each part is made in one function (`build.rs`), in the order of the layers.

mod accounts;
mod build;
mod files;
mod identity;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use hearth_api::client::rooms::Links;
use hearth_cluster::Cluster;
use hearth_core::clock::SystemClock;
use hearth_core::config::{Api, RegistrationMode};
use hearth_core::http::{NoOutbound, SharedOutbound};
use hearth_core::random::OsRandom;
use hearth_core::{Config, Pool, SharedClock, SharedRandom, Shutdown, tasks};
use hearth_federation::Federation;
use hearth_media::MediaStore;
use hearth_push::Push;
use hearth_rooms::Rooms;
use hearth_search::Search;
use hearth_storage::{Engine, Log, MemoryEngine, RocksEngine, RocksOptions, WriterMode};
use hearth_sync::SyncEngine;
use hearth_users::Users;
use parking_lot::Mutex;

use crate::Error;
use crate::outbound::HttpOutbound;
use crate::pages::Facts;
pub use accounts::Accounts;
use build::{
    build_federation, build_previews, build_rooms, build_users, open_log, open_media, open_push, open_search,
    share,
};
use files::read_appservices;

/// The outside world of a server. Tests and simulations bring their own.
pub struct Deps {
    /// The time.
    pub clock: SharedClock,
    /// Random bytes.
    pub random: SharedRandom,
    /// Requests to other machines.
    pub outbound: SharedOutbound,
    /// Requests for pages that users want previewed.
    pub preview_outbound: SharedOutbound,
    /// Requests to application services.
    pub appservice_outbound: SharedOutbound,
    /// Where data is kept.
    pub engine: Arc<dyn Engine>,
    /// Threads for sections that block.
    pub pool: Pool,
    /// Who writes the log.
    pub writer: WriterMode,
    /// Where uploaded files lie.
    pub media_dir: PathBuf,
    /// Where the search index lies; in memory without a folder.
    pub search_dir: Option<PathBuf>,
    /// Where a running server takes commands, if it does.
    pub admin_socket: Option<PathBuf>,
}

impl Deps {
    /// The real world: the machine's clock and entropy, the network, RocksDB in the data directory.
    pub fn production(config: &Config) -> Result<Self, Error> {
        let folder = config.database_dir();
        let unusable = |reason: String| Error::Data {
            folder: folder.display().to_string(),
            reason,
        };
        create_private_folder(&config.data_dir).map_err(|error| unusable(error.to_string()))?;
        create_private_folder(&folder).map_err(|error| unusable(error.to_string()))?;
        let options = RocksOptions {
            memory_limit_bytes: usize::try_from(share(config, 50)).unwrap_or(usize::MAX),
        };
        let engine = RocksEngine::open(&folder, options).map_err(|error| match error {
            hearth_storage::Error::InUse(reason) => Error::InUse {
                folder: folder.display().to_string(),
                reason,
            },
            error => unusable(error.to_string()),
        })?;
        let clock: SharedClock = Arc::new(SystemClock);
        let random: SharedRandom = Arc::new(OsRandom);
        let outbound = HttpOutbound::new(config, clock.clone(), random.clone())?;
        Ok(Self {
            clock,
            random,
            outbound: Arc::new(outbound),
            preview_outbound: crate::outbound::for_previews(config)?,
            appservice_outbound: crate::outbound::for_appservices(config)?,
            engine: Arc::new(engine),
            pool: Pool::new(blocking_threads()),
            writer: WriterMode::Thread,
            media_dir: config.media_dir(),
            search_dir: Some(config.search_dir()),
            admin_socket: Some(config.admin_socket()),
        })
    }

    /// A world of memory that reaches nobody, for tests; only uploads are files.
    pub fn for_tests(media_dir: PathBuf) -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            outbound: Arc::new(NoOutbound),
            preview_outbound: Arc::new(NoOutbound),
            appservice_outbound: Arc::new(NoOutbound),
            engine: Arc::new(MemoryEngine::new()),
            pool: Pool::new(2),
            writer: WriterMode::Thread,
            media_dir,
            search_dir: None,
            admin_socket: None,
        }
    }
}

/// Reads the files that the configuration names, as a start would, without touching the data.
pub fn check(config: &Config) -> Result<usize, Error> {
    let server_name = identity::server_name(config)?;
    let appservices = read_appservices(config, &server_name)?.all().len();
    HttpOutbound::new(config, Arc::new(SystemClock), Arc::new(OsRandom))?;
    Ok(appservices)
}

/// Replaces the signing key in the data directory; the ids of the old and of the new key.
pub fn rotate_signing_key(config: &Config) -> Result<(String, String), Error> {
    let deps = Deps::production(config)?;
    identity::check_server_name(config, &*deps.engine)?;
    identity::rotate_signing_key(config, &*deps.engine, &*deps.random, deps.clock.now_ms())
}

/// The data has password hashes and the signing key, so that other users of the machine get no access
/// to a folder made here. One that exists is left as it is.
fn create_private_folder(folder: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// One for each processor: hashing and image work are bound by it, and two keep a small machine from
/// standing still behind one slow read.
fn blocking_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |threads| threads.get().max(2))
}

/// All parts of one server.
pub struct Parts {
    config: Arc<Config>,
    /// The log of all data.
    pub log: Arc<Log>,
    /// Outbox delivery.
    pub cluster: Arc<Cluster>,
    /// Local users.
    pub users: Arc<Users>,
    /// Rooms.
    pub rooms: Arc<Rooms>,
    /// The media repository.
    pub media: MediaStore,
    /// The sync engine.
    pub sync: Arc<SyncEngine>,
    /// Notifications to push gateways.
    pub push: Arc<Push>,
    /// Search in messages, unless it is switched off.
    pub search: Option<Arc<Search>>,
    /// The HTTP API.
    pub api: Arc<hearth_api::App>,
    /// Why the log stopped for good, if it did.
    fatal: Arc<Mutex<Option<String>>>,
    shutdown: Shutdown,
}

impl Parts {
    /// Builds everything. Nothing runs yet but the log's writer.
    pub fn build(config: &Arc<Config>, deps: Deps, shutdown: &Shutdown) -> Result<Self, Error> {
        let server_name = identity::check_server_name(config, &*deps.engine)?;
        let fatal = Arc::new(Mutex::new(None));
        let log = open_log(config, &deps, shutdown, &fatal)?;
        let signing_key = Arc::new(identity::signing_key(config, &*deps.engine, &*deps.random)?);
        let cluster = Cluster::new(log.clone());
        let users = build_users(config, &deps, &log, &cluster, &server_name)?;
        let rooms = build_rooms(config, &deps, &log, &cluster, &server_name, signing_key.clone())?;
        let base = (&cluster, &rooms, &users, shutdown);
        let federation = build_federation(config, &deps, base, &server_name, &signing_key)?;
        rooms.set_remote(federation.remote.clone());
        rooms.on_change(Box::new(crate::metrics::count_events));
        let media = open_media(config, &deps, &cluster, &server_name)?;
        media.set_remote(Arc::new(crate::remote_media::FederatedMedia::new(
            federation.clone(),
            deps.outbound.clone(),
            config.max_upload_bytes,
        )));
        let appservices = Arc::new(read_appservices(config, &server_name)?);
        let (clock, random) = (deps.clock.clone(), deps.random.clone());
        let sync = SyncEngine::new(
            rooms.clone(),
            users.clone(),
            clock.clone(),
            random.clone(),
            shutdown.clone(),
        );
        let vapid = identity::vapid(config, &*deps.engine, &deps.random)?;
        let web_push_key = vapid.public().to_owned();
        let push = open_push(&deps, &users, &rooms, vapid, shutdown)?;
        let previews = build_previews(config, &deps, &media);
        let search = open_search(config, &deps, &rooms, shutdown)?;
        let api = hearth_api::App::new(hearth_api::app::Parts {
            config: config.clone(),
            server_name,
            clock,
            random,
            users: users.clone(),
            rooms: rooms.clone(),
            sync: sync.clone(),
            appservices,
            appservice_outbound: deps.appservice_outbound,
            federation,
            media: media.clone(),
            previews,
            search: search.clone(),
            web_push_key,
            room_links: Arc::new(Links::new(rooms.clone(), users.clone())),
        });
        Ok(Self {
            config: config.clone(),
            log,
            cluster,
            users,
            rooms,
            media,
            sync,
            push,
            search,
            api,
            fatal,
            shutdown: shutdown.clone(),
        })
    }

    /// Starts what an operation on an account waits for, and nothing that reaches other machines: what a command leaves
    /// for them goes out when the server runs again. Needs a runtime.
    pub fn start_for_command(&self) -> Result<(), Error> {
        self.cluster.start().map_err(|error| Error::Start {
            part: "outbox delivery",
            reason: error.to_string(),
        })
    }

    /// Starts what runs by itself: outbox delivery, feed consumers, timers. Needs a runtime.
    pub fn start(&self) -> Result<(), Error> {
        self.start_for_command()?;
        self.api.federation.start().map_err(|error| Error::Start {
            part: "federation",
            reason: error.to_string(),
        })?;
        self.users.start(&self.shutdown);
        self.rooms.resume_partial();
        self.rooms.start(&self.shutdown).map_err(|error| Error::Start {
            part: "the follower of feeds",
            reason: error.to_string(),
        })?;
        self.sync.start();
        self.push.start().map_err(|error| Error::Start {
            part: "push",
            reason: error.to_string(),
        })?;
        let guests = match self.config.guests {
            true => self.rooms.watch_guests(self.users.clone(), &self.shutdown),
            false => self.rooms.forget_guests(),
        };
        guests.map_err(|error| Error::Start {
            part: "guests",
            reason: error.to_string(),
        })?;
        let sender = hearth_api::client::delayed_events::Sender::new(&self.api);
        let delayed = self.users.delayed().start(Arc::new(sender), &self.shutdown);
        delayed.map_err(|error| Error::Start {
            part: "delayed events",
            reason: error.to_string(),
        })?;
        if let Some(search) = &self.search {
            search.start();
        }
        let media = self.media.clone();
        tasks::spawn("media sweep", async move {
            if let Err(error) = media.sweep().await {
                tracing::warn!(%error, "files that a crash left could not be removed");
            }
        });
        Ok(())
    }

    /// The routes of all APIs on a listener; none where it serves only metrics or health.
    pub fn router(&self, apis: &[Api]) -> Option<Router> {
        let served = [Api::Client, Api::Federation, Api::WellKnown];
        let serves = served.iter().any(|api| apis.contains(api));
        serves.then(|| hearth_api::router(self.api.clone(), apis))
    }

    /// The token whose user becomes administrator, until it is used.
    pub async fn first_token(&self) -> Result<Option<String>, Error> {
        if self.config.registration != RegistrationMode::Token {
            return Ok(None);
        }
        let token = self.users.registration_tokens().bootstrap().await;
        token.map_err(|error| Error::Start {
            part: "registration",
            reason: error.to_string(),
        })
    }

    /// Finishes what was begun and closes the data.
    pub async fn close(&self) {
        // A command closes what it has built without having served: what runs by itself must not go on without data.
        self.shutdown.trigger();
        if let Err(error) = self.users.flush_last_seen().await {
            tracing::warn!(%error, "the times at which devices were seen could not be stored");
        }
        self.sync.close().await;
        if let Some(search) = &self.search {
            search.close().await;
        }
        let log = self.log.clone();
        // Closing waits for the log's thread, which must not hold up the runtime.
        let closed = tokio::task::spawn_blocking(move || {
            log.close();
            log.engine().flush()
        });
        match closed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the last flush failed; the next start replays the write-ahead log")
            }
            Err(error) => {
                tracing::error!(%error, "closing the data failed; the next start replays the write-ahead log")
            }
        }
    }

    /// Why the server had to stop, if its data could not be written.
    pub fn fatal(&self) -> Option<String> {
        self.fatal.lock().clone()
    }

    /// What the server's own pages ask.
    pub fn facts(&self) -> Arc<dyn Facts> {
        Arc::new(PageFacts {
            log: self.log.clone(),
            rooms: self.rooms.clone(),
            federation: self.api.federation.clone(),
            clock: self.api.clock.clone(),
            shutdown: self.shutdown.clone(),
        })
    }
}

struct PageFacts {
    log: Arc<Log>,
    rooms: Arc<Rooms>,
    federation: Arc<Federation>,
    clock: SharedClock,
    shutdown: Shutdown,
}

impl Facts for PageFacts {
    fn ready(&self) -> bool {
        // A full disk is no reason to send clients elsewhere: they can still read.
        !self.shutdown.is_triggered()
            && !matches!(self.log.check_writable(), Err(hearth_storage::Error::Stopped))
    }

    fn storage_bytes(&self) -> Option<u64> {
        Some(self.log.engine().usage_bytes())
    }

    fn samples(&self) -> String {
        let mut text = String::new();
        crate::samples::rooms(&self.rooms, &mut text);
        crate::samples::federation(&self.federation, self.clock.now_ms(), &mut text);
        text
    }
}
