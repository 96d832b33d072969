//! What happens to every request before and after its handler: CORS, panics turned into answers, and the latency
//! metric by route.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_core::error::MatrixError;
use hearth_core::http::RequestId;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tower::{Layer, Service};
use tracing::Instrument;

use crate::app::App;
use crate::error::ApiError;

/// The address at the other end of the connection. The listener puts it into the request's
/// extensions; requests made inside the process (tests, simulations) have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub IpAddr);

/// Wraps every route. A layer of its own and no function of axum's middleware, which clones and boxes the rest of the way once more
/// for each request.
#[derive(Clone)]
pub struct EdgeLayer(pub Arc<App>);

/// A route with its edge.
#[derive(Clone)]
pub struct Edge<S> {
    app: Arc<App>,
    inner: S,
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        let app = self.0.clone();
        Edge { app, inner }
    }
}

impl<S> Service<Request> for Edge<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.method() == Method::OPTIONS {
            let mut response = StatusCode::OK.into_response();
            add_cors(response.headers_mut());
            return Box::pin(std::future::ready(Ok(response)));
        }
        let matched = request.extensions().get::<MatchedPath>().cloned();
        let method = request.method().clone();
        let route = route_of(matched.as_ref());
        // With the id of the span around it: a log as JSON shows the innermost span alone.
        let id = request.extensions().get::<RequestId>();
        let id = id.map(|id| &*id.0);
        let span = tracing::debug_span!("endpoint", id, %method, route);
        let app = self.app.clone();
        let started = Instant::now();
        let handled = AssertUnwindSafe(self.inner.call(request))
            .catch_unwind()
            .instrument(span.clone());
        Box::pin(async move {
            let mut response = match handled.await {
                Ok(answered) => answered.unwrap_or_else(|never| match never {}),
                Err(panic) => {
                    let _in_span = span.enter();
                    answer_panic(panic.as_ref())
                }
            };
            add_cors(response.headers_mut());
            crate::error::finish(&mut response, &app.config);
            let elapsed = started.elapsed();
            let status = response.status();
            tracing::debug!(parent: &span, status = status.as_u16(), ?elapsed, "answered");
            app.latencies
                .record(route_of(matched.as_ref()), &method, status, elapsed);
            Ok(response)
        })
    }
}

fn route_of(matched: Option<&MatchedPath>) -> &str {
    matched.map_or("unmatched", MatchedPath::as_str)
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
