//! The builder of the endpoint tables: one call lists a path under every prefix where it answers.

use std::sync::Arc;

use axum::Router;
use axum::routing::MethodRouter;

use crate::app::App;

/// The prefix of the stable client API.
const V3: &str = "/_matrix/client/v3";
/// The prefix that clients older than specification v1.1 call.
const R0: &str = "/_matrix/client/r0";
/// The prefix of endpoints whose own version is 1.
const V1: &str = "/_matrix/client/v1";

/// The prefix of what is not in the specification, or was not when its clients were written.
const UNSTABLE: &str = "/_matrix/client/unstable";

/// A table of endpoints. The paths use axum's syntax: `/rooms/{roomId}/join`.
#[derive(Default)]
pub struct Routes {
    router: Router<Arc<App>>,
}

impl Routes {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lists an endpoint under `/_matrix/client/v3` and, for old clients, `/_matrix/client/r0`.
    pub fn v3(self, path: &str, methods: MethodRouter<Arc<App>>) -> Self {
        self.at(&format!("{V3}{path}"), methods.clone())
            .at(&format!("{R0}{path}"), methods)
    }

    /// Lists an endpoint also right under `/_matrix/client/unstable`, where it stood before the specification had it:
    /// the first Element for Android and for iOS, and what was made of them, still ask for it there.
    pub fn once_unstable(self, path: &str, methods: MethodRouter<Arc<App>>) -> Self {
        self.at(&format!("{UNSTABLE}{path}"), methods)
    }

    /// Lists an endpoint under `/_matrix/client/v1`.
    pub fn v1(self, path: &str, methods: MethodRouter<Arc<App>>) -> Self {
        self.at(&format!("{V1}{path}"), methods)
    }

    /// Lists an endpoint under `/_matrix/client/unstable/<feature>`.
    pub fn unstable(self, feature: &str, path: &str, methods: MethodRouter<Arc<App>>) -> Self {
        self.at(&format!("{UNSTABLE}/{feature}{path}"), methods)
    }

    /// Lists an endpoint under exactly this path.
    pub fn at(mut self, path: &str, methods: MethodRouter<Arc<App>>) -> Self {
        self.router = self.router.route(path, methods);
        self
    }

    /// Adds the endpoints of another table.
    pub fn merge(mut self, other: Routes) -> Self {
        self.router = self.router.merge(other.router);
        self
    }

    /// The finished table as a router.
    pub fn into_router(self) -> Router<Arc<App>> {
        self.router
    }
}
