//! What happens to every request before and after its handler: CORS, panics turned into answers, and the latency
//! metric by route.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use hearth_core::error::MatrixError;
use hearth_core::http::RequestId;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tracing::Instrument;

use crate::app::App;
use crate::error::ApiError;

/// The address at the other end of the connection. The listener puts it into the request's
/// extensions; requests made inside the process (tests, simulations) have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub IpAddr);

/// Wraps every request.
pub async fn edge(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.method() == Method::OPTIONS {
        let mut response = StatusCode::OK.into_response();
        add_cors(response.headers_mut());
        return response;
    }
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = request.method().clone();
    // With the id of the span around it: a log as JSON shows the innermost span alone.
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let span = tracing::debug_span!("endpoint", id = id.as_deref(), %method, route);
    let started = Instant::now();
    let outcome = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .instrument(span.clone())
        .await;
    let mut response = outcome.unwrap_or_else(|panic| {
        let _in_span = span.enter();
        answer_panic(panic.as_ref())
    });
    add_cors(response.headers_mut());
    crate::error::finish(&mut response, &app.config);
    let elapsed = started.elapsed();
    let status = response.status();
    tracing::debug!(parent: &span, status = status.as_u16(), ?elapsed, "answered");
    app.latencies.record(route, &method, status, elapsed);
    response
}

fn answer_panic(panic: &(dyn std::any::Any + Send)) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    ApiError::internal(&format_args!("a handler panicked: {text}")).into_response()
}

/// The headers that let web clients on other origins use the API (Client-Server API, section
/// "Web Browser Clients").
fn add_cors(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    );
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("X-Requested-With, Content-Type, Authorization"),
    );
    // A web client can read Retry-After only if it is exposed.
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Retry-After"),
    );
}

/// The answer for a path that is no endpoint.
pub async fn not_found() -> ApiError {
    MatrixError::unrecognized().into()
}

/// The answer for a known path with a method that it does not have.
pub async fn method_not_allowed() -> ApiError {
    MatrixError::method_not_allowed().into()
}
