//! One server: built, its routers, run until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use hearth_core::config::Api;
use hearth_core::{Config, MatrixError, Shutdown, tasks};
use http::StatusCode;
use tokio::task::JoinHandle;

use crate::admin_socket::AdminSocket;
pub use crate::listener::Bound;
use crate::listener::Serving;
use crate::request::{Ids, Site};
use crate::wiring::{Deps, Parts};
use crate::{Error, metrics, pages};

/// A homeserver in this process. Several can live beside each other.
pub struct Server {
    config: Arc<Config>,
    parts: Parts,
    ids: Arc<Ids>,
    admin_socket: Option<PathBuf>,
    shutdown: Shutdown,
}

impl Server {
    /// Builds a server. It answers through [`Self::router`] once [`Self::start`] was called.
    pub fn build(config: Config, deps: Deps) -> Result<Self, Error> {
        let config = Arc::new(config);
        let shutdown = Shutdown::new();
        metrics::install(&*deps.clock);
        let ids = Ids::new(&*deps.random, config.trusted_proxies.clone());
        let admin_socket = deps.admin_socket.clone();
        let parts = Parts::build(&config, deps, &shutdown)?;
        Ok(Self {
            config,
            parts,
            ids,
            admin_socket,
            shutdown,
        })
    }

    /// A server for one command of `hearth user`: it opens the data and serves nobody.
    pub fn build_for_command(config: Config) -> Result<Self, Error> {
        let deps = Deps::production(&config)?;
        let server = Self::build(config, deps)?;
        server.parts.start_for_command()?;
        Ok(server)
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The parts, for the command line and for tests.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The signal that stops the server.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Starts what runs by itself. Needs a runtime.
    pub fn start(&self) -> Result<(), Error> {
        metrics::start_upkeep(self.shutdown.clone());
        self.parts.start()
    }

    /// The routes of a listener as a tower service, for simulations and tests.
    pub fn router(&self, apis: &[Api]) -> Router {
        self.site(apis).into_router()
    }

    /// The routes of a listener.
    fn site(&self, apis: &[Api]) -> Site {
        let pages = pages::router(self.config.clone(), self.parts.facts(), apis);
        // The APIs bring their own answer for unknown paths.
        let router = match self.parts.router(apis) {
            Some(api) => api.merge(pages),
            None => pages.fallback(not_found),
        };
        Site::new(self.ids.clone(), router)
    }

    /// Opens all configured listeners.
    pub async fn listen(&self) -> Result<Vec<Bound>, Error> {
        let mut bound = Vec::new();
        for listener in self.config.all_listeners() {
            bound.push(Bound::open(&listener).await?);
        }
        Ok(bound)
    }

    /// Serves until [`Self::shutdown`] goes off: then it stops accepting, waiting syncs end at once,
    /// requests are answered, and the data is closed.
    pub async fn run(self, listeners: Vec<Bound>) -> Result<(), Error> {
        self.start()?;
        let commands = self.take_commands();
        let mut serving = Serving::new(self.shutdown.clone(), self.config.max_connections);
        for bound in listeners {
            let site = self.site(bound.apis());
            serving.start(bound, site);
        }
        self.shutdown.wait().await;
        tracing::info!("stopping: open requests are being answered");
        serving.drain().await;
        if let Some(commands) = commands {
            // A panic in it was logged, and is no reason not to close the data.
            let _ = commands.await;
        }
        let fatal = self.parts.fatal();
        self.parts.close().await;
        match fatal {
            Some(reason) => Err(Error::Fatal(reason)),
            None => Ok(()),
        }
    }
}

impl Server {
    /// Takes commands on the admin socket until the server stops. Without it everything else works.
    fn take_commands(&self) -> Option<JoinHandle<()>> {
        let path = self.admin_socket.clone()?;
        match AdminSocket::open(path.clone()) {
            Ok(socket) => {
                let served = socket.serve(self.parts.accounts(), self.shutdown.clone());
                Some(tasks::spawn("admin socket", served))
            }
            Err(error) => {
                let path = path.display();
                tracing::warn!(%error, %path, "no admin socket: `hearth user` works only while the server is stopped");
                None
            }
        }
    }
}

async fn not_found() -> (StatusCode, axum::Json<serde_json::Value>) {
    (
        StatusCode::NOT_FOUND,
        axum::Json(MatrixError::unrecognized().body()),
    )
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn get(router: &Router, path: &str) -> (StatusCode, String, http::HeaderMap) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned(), headers)
    }

    fn server(folder: &tempfile::TempDir) -> Server {
        let deps = Deps::for_tests(folder.path().join("media"));
        Server::build(Config::for_tests("test.example"), deps).expect("a server")
    }

    #[tokio::test]
    async fn the_pages_answer_where_they_should() {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server(&folder);
        let all = server.router(&[Api::Client, Api::Health]);
        for (path, part) in [
            ("/", "test.example"),
            ("/_hearth/health/live", "live"),
            ("/_hearth/health/ready", "ready"),
            ("/metrics", "hearth_build_info"),
        ] {
            let (status, body, headers) = get(&all, path).await;
            assert_eq!(status, 200, "{path}");
            assert!(body.contains(part), "{path}: {body}");
            assert!(headers.contains_key("x-request-id"), "{path}");
        }
        let metrics_only = server.router(&[Api::Metrics]);
        assert_eq!(get(&metrics_only, "/metrics").await.0, 200);
        let (status, body, _) = get(&metrics_only, "/").await;
        assert_eq!(status, 404);
        assert!(body.contains("M_UNRECOGNIZED"), "{body}");
        server.shutdown().trigger();
        assert_eq!(get(&all, "/_hearth/health/ready").await.0, 503);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_serves_and_stops() {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server(&folder);
        let listeners = server.listen().await.expect("listeners");
        let address = listeners[0].address();
        let shutdown = server.shutdown();
        let running = tokio::task::spawn_blocking({
            let runtime = tokio::runtime::Handle::current();
            move || runtime.block_on(server.run(listeners))
        });
        let url = format!("http://{address}/_hearth/health/ready");
        let text = reqwest::get(&url)
            .await
            .expect("an answer")
            .text()
            .await
            .expect("a body");
        assert_eq!(text, "ready\n");
        shutdown.trigger();
        running.await.expect("no panic").expect("an orderly end");
        assert!(reqwest::get(&url).await.is_err(), "it still accepts");
    }
}
