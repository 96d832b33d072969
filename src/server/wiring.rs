//! Builds the parts of a server out of its configuration and its outside world. The one place that
//! names all other crates; each part is made in one function, in the order of the layers.

mod accounts;
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
use hearth_events::KeyPair;
use hearth_federation::Federation;
use hearth_media::{MediaSettings, MediaStore, PreviewPolicy, PreviewSettings, Previews};
use hearth_push::{Push, PushParts, Vapid};
use hearth_rooms::{Rooms, RoomsConfig};
use hearth_search::{Search, SearchParts};
use hearth_storage::{Engine, Log, LogOptions, MemoryEngine, RocksEngine, RocksOptions, WriterMode};
use hearth_sync::SyncEngine;
use hearth_users::{PasswordCost, Settings, Users};
use parking_lot::Mutex;
use ruma::{OwnedServerName, OwnedUserId, RoomVersionId, UserId};

use crate::Error;
use crate::outbound::HttpOutbound;
use crate::pages::Facts;
pub use accounts::Accounts;
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
        let engine = RocksEngine::open(&folder, options).map_err(|error| {
            let hint = if error.to_string().contains("lock") {
                " (is a server running on it?)"
            } else {
                ""
            };
            unusable(format!("{error}{hint}"))
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
            room_links: Arc::new(Links {
                users: users.clone(),
                rooms: rooms.clone(),
            }),
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

/// A part of the memory budget: RocksDB has half of it, the caches above share the rest, and a few percent are for what
/// the search index takes while it is written.
fn share(config: &Config, percent: u64) -> u64 {
    config.memory_limit / 100 * percent
}

fn build_users(
    config: &Config,
    deps: &Deps,
    log: &Arc<Log>,
    cluster: &Arc<Cluster>,
    server_name: &OwnedServerName,
) -> Result<Arc<Users>, Error> {
    let mut settings = Settings::new(server_name.clone());
    settings.password_min_chars = config.session.password_min_chars;
    settings.password_cost = PasswordCost {
        memory_kib: u32::try_from(config.session.password_hash_memory / 1024).unwrap_or(u32::MAX),
        iterations: config.session.password_hash_passes,
        parallelism: 1,
    };
    settings.access_token_lifetime_ms = config.session.access_token_seconds * 1000;
    settings.cache_bytes = share(config, 10);
    settings.server_user = notices_user(config, server_name)?;
    settings.presence = config.presence;
    let (clock, random) = (deps.clock.clone(), deps.random.clone());
    Ok(Users::new(
        log.clone(),
        cluster.clone(),
        clock,
        random,
        deps.pool.clone(),
        settings,
    ))
}

/// The user that server notices come from, if the operator named one.
fn notices_user(config: &Config, server_name: &OwnedServerName) -> Result<Option<OwnedUserId>, Error> {
    let localpart = config.server_notices.localpart.as_deref();
    let user = localpart.map(|localpart| UserId::parse(format!("@{localpart}:{server_name}")));
    user.transpose().map_err(|error| Error::Start {
        part: "server notices",
        reason: format!("server_notices.localpart: {error}"),
    })
}

fn build_rooms(
    config: &Config,
    deps: &Deps,
    log: &Arc<Log>,
    cluster: &Arc<Cluster>,
    server_name: &OwnedServerName,
    signing_key: Arc<KeyPair>,
) -> Result<Arc<Rooms>, Error> {
    let default_version =
        RoomVersionId::try_from(config.default_room_version.as_str()).map_err(|error| Error::Start {
            part: "rooms",
            reason: format!("default_room_version: {error}"),
        })?;
    let rooms = RoomsConfig {
        server_name: server_name.clone(),
        signing_key,
        default_version,
        event_cache_bytes: share(config, 18),
        node_cache_bytes: share(config, 18),
        pool: deps.pool.clone(),
    };
    Ok(Rooms::new(
        log.clone(),
        cluster.clone(),
        deps.clock.clone(),
        deps.random.clone(),
        rooms,
    ))
}

fn build_federation(
    config: &Config,
    deps: &Deps,
    (cluster, rooms, users, shutdown): (&Arc<Cluster>, &Arc<Rooms>, &Arc<Users>, &Shutdown),
    server_name: &OwnedServerName,
    signing_key: &Arc<KeyPair>,
) -> Result<Arc<Federation>, Error> {
    let trusted = config.trusted_key_servers.iter().map(|name| {
        OwnedServerName::try_from(name.as_str()).map_err(|error| Error::Start {
            part: "federation",
            reason: format!("trusted_key_servers: {error}"),
        })
    });
    Ok(Federation::new(hearth_federation::Parts {
        server_name: server_name.clone(),
        signing_key: signing_key.clone(),
        former_keys: identity::former_keys(config, &*deps.engine, signing_key)?,
        trusted_key_servers: trusted.collect::<Result<_, _>>()?,
        outbound: deps.outbound.clone(),
        cluster: cluster.clone(),
        clock: deps.clock.clone(),
        random: deps.random.clone(),
        rooms: rooms.clone(),
        users: users.clone(),
        shutdown: shutdown.clone(),
    }))
}

fn open_push(
    deps: &Deps,
    users: &Arc<Users>,
    rooms: &Arc<Rooms>,
    vapid: Vapid,
    shutdown: &Shutdown,
) -> Result<Arc<Push>, Error> {
    let parts = PushParts {
        rooms: rooms.clone(),
        users: users.clone(),
        outbound: deps.outbound.clone(),
        clock: deps.clock.clone(),
        random: deps.random.clone(),
        vapid,
    };
    Push::new(parts, shutdown.clone()).map_err(|error| Error::Start {
        part: "push",
        reason: error.to_string(),
    })
}

fn open_search(
    config: &Config,
    deps: &Deps,
    rooms: &Arc<Rooms>,
    shutdown: &Shutdown,
) -> Result<Option<Arc<Search>>, Error> {
    let failed = |error: hearth_search::Error| Error::Start {
        part: "search",
        reason: error.to_string(),
    };
    if !config.message_search.enabled {
        Search::switch_off(rooms).map_err(failed)?;
        return Ok(None);
    }
    if let Some(folder) = &deps.search_dir {
        create_private_folder(folder).map_err(|error| failed(error.into()))?;
    }
    let parts = SearchParts {
        rooms: rooms.clone(),
        pool: deps.pool.clone(),
        folder: deps.search_dir.clone(),
    };
    Search::open(parts, shutdown.clone()).map(Some).map_err(failed)
}

fn open_media(
    config: &Config,
    deps: &Deps,
    cluster: &Arc<Cluster>,
    server_name: &OwnedServerName,
) -> Result<MediaStore, Error> {
    let directory = deps.media_dir.clone();
    let unusable = |error: std::io::Error| Error::Data {
        folder: directory.display().to_string(),
        reason: error.to_string(),
    };
    let settings = MediaSettings {
        directory: directory.clone(),
        server_name: server_name.clone(),
        max_upload_bytes: config.max_upload_bytes,
    };
    let (clock, random) = (deps.clock.clone(), deps.random.clone());
    create_private_folder(&directory)
        .and_then(|()| MediaStore::open(settings, cluster.clone(), clock, random, deps.pool.clone()))
        .map_err(unusable)
}

fn build_previews(config: &Config, deps: &Deps, media: &MediaStore) -> Option<Previews> {
    let settings = &config.url_preview;
    settings.enabled.then(|| {
        let preview_settings = PreviewSettings {
            policy: PreviewPolicy {
                allow: settings.allow.clone(),
                deny: settings.deny.clone(),
            },
            kept_ms: settings.keep_seconds * 1000,
            cache_bytes: share(config, 1),
        };
        Previews::new(media.clone(), deps.preview_outbound.clone(), preview_settings)
    })
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
