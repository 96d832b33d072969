//! A whole server in this process: no sockets, the in-memory engine.

use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use hearth_core::config::Api;
use hearth_core::http::SharedOutbound;
use hearth_core::random::SeededRandom;
use hearth_core::{Config, Pool};
use hearth_server::{Deps, Server};
use hearth_storage::{Family, MemoryEngine, Reader, WriterMode};
use serde_json::Value;
use tempfile::TempDir;

use crate::openapi::Watch;
use crate::{Answer, Client, Endpoint, SimNetwork};

/// What the listeners of a test server serve.
const APIS: [Api; 4] = [Api::Client, Api::Federation, Api::Health, Api::WellKnown];

/// The time at which simulations begin, in milliseconds since 1970.
const SIMULATION_START_MS: u64 = 1_700_000_000_000;

/// A running server.
pub struct TestServer {
    server: Server,
    router: Router,
    engine: Arc<MemoryEngine>,
    config: Config,
    folder: TempDir,
    /// Whether the search index is on disk and outlives a restart, as that of a real server.
    index_on_disk: bool,
    _watch: Watch,
    _records: Records,
}

/// Looks at everything that a server has stored when a test is done with it.
struct Records(Arc<MemoryEngine>);

/// Tags count up from 1: what begins with more than this has none.
const TAG_MAX: u8 = 15;

impl Drop for Records {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for family in Family::ALL {
            // After a crash there is nothing to be read.
            let _ = self.0.scan(*family, &[], &[0xFF; 8], false, &mut |key, value| {
                let tag = value.first().copied().unwrap_or_default();
                assert!(
                    (1..=TAG_MAX).contains(&tag),
                    "a record of {} has no version tag: {key:?} {value:?}",
                    family.name()
                );
                true
            });
        }
    }
}

impl TestServer {
    /// A server with the name `hs1` and this many shards.
    pub async fn memory(shards: u16) -> Self {
        Self::memory_with(shards, |_| {}).await
    }

    /// A server with other settings.
    pub async fn memory_with(shards: u16, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::for_tests("hs1");
        config.shards = shards;
        configure(&mut config);
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start(config, Arc::new(MemoryEngine::new()), folder, |_| {})
    }

    /// A server that reaches pages for previews, and application services, by this way.
    pub async fn reaching(outbound: SharedOutbound, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::for_tests("hs1");
        configure(&mut config);
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start(config, Arc::new(MemoryEngine::new()), folder, |deps| {
            deps.preview_outbound = outbound.clone();
            deps.appservice_outbound = outbound;
        })
    }

    /// A server whose search index lies on disk, as that of a real server.
    pub async fn with_index_on_disk(shards: u16) -> Self {
        let mut config = Config::for_tests("hs1");
        config.shards = shards;
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_on(config, Arc::new(MemoryEngine::new()), folder, true, |_| {})
    }

    /// A server in a simulation: time is tokio's, randomness is seeded, everything runs on the calling
    /// thread, and other servers are reached through the network.
    pub fn simulated(name: &str, shards: u16, seed: u64, network: &SimNetwork) -> Self {
        Self::simulated_with(name, shards, seed, network, |_| {})
    }

    /// As [`simulated`](Self::simulated), with other settings.
    pub fn simulated_with(
        name: &str,
        shards: u16,
        seed: u64,
        network: &SimNetwork,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config::for_tests(name);
        config.shards = shards;
        // The index has threads of its own, which a simulation does not steer.
        config.message_search.enabled = false;
        config.admins = vec![format!("@admin:{name}")];
        configure(&mut config);
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_simulated(config, Arc::new(MemoryEngine::new()), folder, seed, network)
    }

    /// As [`restart`](Self::restart), in a simulation.
    pub async fn restart_simulated(self, seed: u64, network: &SimNetwork) -> Self {
        self.server.shutdown().trigger();
        self.server.parts().close().await;
        Self::start_simulated(self.config, self.engine, self.folder, seed, network)
    }

    /// As [`crash`](Self::crash), in a simulation: whoever waits for an answer of this server waits in vain.
    pub fn crash_simulated(self, seed: u64, network: &SimNetwork) -> Self {
        network.crash(self.name());
        self.server.shutdown().trigger();
        let engine = Arc::new(self.engine.crash());
        self.server.parts().log.close();
        Self::start_simulated(self.config, engine, self.folder, seed, network)
    }

    fn start_simulated(
        config: Config,
        engine: Arc<MemoryEngine>,
        folder: TempDir,
        seed: u64,
        network: &SimNetwork,
    ) -> Self {
        let name = config.server_name.clone();
        let server = Self::start(config, engine, folder, |deps| {
            deps.clock = network.clock(SIMULATION_START_MS);
            deps.random = Arc::new(SeededRandom::new(seed));
            deps.outbound = network.link(&name);
            deps.pool = Pool::inline();
            deps.writer = WriterMode::Inline;
        });
        network.add_server(&name, server.router.clone());
        server
    }

    fn start(
        config: Config,
        engine: Arc<MemoryEngine>,
        folder: TempDir,
        change: impl FnOnce(&mut Deps),
    ) -> Self {
        Self::start_on(config, engine, folder, false, change)
    }

    fn start_on(
        config: Config,
        engine: Arc<MemoryEngine>,
        folder: TempDir,
        index_on_disk: bool,
        change: impl FnOnce(&mut Deps),
    ) -> Self {
        // `HEARTH_TEST_LOG=hearth=debug cargo test …` shows what the servers of a test say.
        if let Ok(filter) = std::env::var("HEARTH_TEST_LOG") {
            let format = hearth_core::config::LogFormat::Text;
            hearth_server::logging::init(&hearth_core::config::Log { filter, format })
                .expect("a filter of log lines");
        }
        let mut deps = Deps::for_tests(folder.path().join("media"));
        deps.engine = engine.clone();
        deps.search_dir = index_on_disk.then(|| folder.path().join("search"));
        change(&mut deps);
        let server = Server::build(config.clone(), deps).expect("the server is built");
        server.start().expect("the server starts");
        Self {
            router: server.router(&APIS),
            server,
            _records: Records(engine.clone()),
            engine,
            config,
            folder,
            index_on_disk,
            _watch: Watch,
        }
    }

    /// Stops in the middle of everything and starts again on what was synced.
    pub async fn crash(self) -> Self {
        self.server.shutdown().trigger();
        let engine = Arc::new(self.engine.crash());
        self.server.parts().log.close();
        if let Some(search) = &self.server.parts().search {
            search.close().await;
        }
        let (config, on_disk) = (self.config, self.index_on_disk);
        drop((self.server, self.router));
        Self::start_on(config, engine, self.folder, on_disk, |_| {})
    }

    /// Stops in order and starts again on the same data.
    pub async fn restart(self) -> Self {
        self.server.shutdown().trigger();
        self.server.parts().close().await;
        let (config, on_disk) = (self.config, self.index_on_disk);
        drop((self.server, self.router));
        Self::start_on(config, self.engine, self.folder, on_disk, |_| {})
    }

    /// Where it answers.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Router(self.router.clone())
    }

    /// The server's name.
    pub fn name(&self) -> &str {
        &self.config.server_name
    }

    /// The full id of a user of this server.
    pub fn user_id(&self, name: &str) -> String {
        format!("@{name}:{}", self.name())
    }

    /// The server itself.
    pub fn inner(&self) -> &Server {
        &self.server
    }

    /// A new account with its first device.
    pub async fn register(&self, name: &str) -> Client {
        Client::register(&self.endpoint(), name).await
    }

    /// Another device of an account.
    pub async fn login(&self, name: &str, device: &str) -> Client {
        Client::login(&self.endpoint(), name, device).await
    }

    /// A request with JSON, or without a body where `body` is null.
    pub async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Value) -> Answer {
        self.endpoint().call(method, path, token, &body).await
    }

    /// A request with any bytes.
    pub async fn call_bytes(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Answer {
        self.endpoint().call_bytes(method, path, token, body.into()).await
    }
}
