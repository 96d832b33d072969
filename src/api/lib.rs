//! HTTP: endpoints, extractors, and the one place that maps errors to Matrix error codes.
//!
//! A request passes `edge` (request id, CORS, panics, latency), is matched by the tables in
//! `client`, `admin` and `well_known`, gets its typed input from `extract`, and answers through
//! `error`. `docs/adding-an-endpoint.md` says what a new endpoint needs.

pub mod admin;
pub mod app;
pub mod client;
pub mod edge;
pub mod error;
pub mod extract;
pub mod federation;
pub mod latency;
pub mod ratelimit;
pub mod routes;
pub mod well_known;

pub use app::App;
pub use error::{ApiError, Result};

use std::sync::Arc;

use axum::Router;
use hearth_core::config::Api;

/// The APIs that a listener serves, ready to serve: the client-server API comes with the admin
/// endpoints and, as its clients look there, with the well-known documents.
pub fn router(app: Arc<App>, apis: &[Api]) -> Router {
    let mut router = Router::new();
    let client = apis.contains(&Api::Client);
    if client {
        router = router
            .merge(client::routes().into_router())
            .merge(admin::routes().into_router());
    }
    if apis.contains(&Api::Federation) {
        router = router.merge(federation::routes().into_router());
    }
    if client || apis.contains(&Api::WellKnown) {
        router = router.merge(well_known::routes().into_router());
    }
    router
        .fallback(edge::not_found)
        .method_not_allowed_fallback(edge::method_not_allowed)
        .layer(edge::EdgeLayer(app.clone()))
        .with_state(app)
}

#[cfg(test)]
mod router_tests;
