//! What surrounds each request: its id, its line in the log, the peer's address.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_api::edge::PeerAddress;
use hearth_core::config::Network;
use hearth_core::http::RequestId;
use hearth_core::random::{Random, alphanumeric};
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::Body;
use tower::Service;
use tracing::Instrument;

/// The header that names a request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that a proxy may give.
const GIVEN_ID_MAX_BYTES: usize = 64;

/// Makes request ids and knows whose ids are believed.
pub struct Ids {
    /// Differs from start to start, so that ids do not repeat.
    start: String,
    next: AtomicU64,
    trusted_proxies: Vec<Network>,
}

impl Ids {
    /// Ids for this start of the server.
    pub fn new(random: &dyn Random, trusted_proxies: Vec<Network>) -> Arc<Self> {
        Arc::new(Self {
            start: alphanumeric(random, 6),
            next: AtomicU64::new(1),
            trusted_proxies,
        })
    }

    /// The id that a trusted proxy gave, or a new one.
    fn id_for(&self, headers: &HeaderMap, peer: Option<PeerAddress>) -> Arc<str> {
        let trusted = peer.is_some_and(|peer| {
            self.trusted_proxies
                .iter()
                .any(|network| network.contains(peer.0))
        });
        let given = headers
            .get(X_REQUEST_ID)
            .filter(|_| trusted)
            .and_then(|value| value.to_str().ok());
        match given {
            Some(id) if is_plain_id(id) => id.into(),
            _ => {
                let number = self.next.fetch_add(1, Ordering::Relaxed).to_string();
                [self.start.as_str(), "-", &number].concat().into()
            }
        }
    }
}

fn is_plain_id(id: &str) -> bool {
    (1..=GIVEN_ID_MAX_BYTES).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// The routes of a listener with what surrounds each request.
#[derive(Clone)]
pub struct Site {
    ids: Arc<Ids>,
    router: Router,
}

impl Site {
    /// Surrounds routes.
    pub fn new(ids: Arc<Ids>, router: Router) -> Self {
        Self { ids, router }
    }

    /// Answers a request. The log gets the path without its query, because old clients send access tokens there.
    pub fn answer<B>(&self, mut request: http::Request<B>) -> impl Future<Output = Response> + Send + use<B>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let peer = request.extensions().get::<PeerAddress>().copied();
        let id = self.ids.id_for(request.headers(), peer);
        // Of the highest level, so that the lines have the id whatever the log leaves out.
        let span = tracing::error_span!("request", id = &*id);
        let line = tracing::enabled!(target: "hearth::access", tracing::Level::DEBUG)
            .then(|| (request.method().clone(), request.uri().path().to_owned()));
        request.extensions_mut().insert(RequestId(id.clone()));
        // Not as a layer, which axum would put around each route by itself and clone with it for each request.
        let routed = self.router.clone().call(request).instrument(span.clone());
        async move {
            let mut response = routed.await.unwrap_or_else(|never| match never {});
            if let Some((method, path)) = line {
                let status = response.status().as_u16();
                tracing::debug!(target: "hearth::access", parent: &span, %method, path, status, "answered");
            }
            if let Ok(value) = HeaderValue::from_str(&id) {
                response.headers_mut().insert(X_REQUEST_ID, value);
            }
            response
        }
    }

    /// The same as a router, for who calls it without a socket.
    pub fn into_router(self) -> Router {
        Router::new().fallback_service(self)
    }
}

impl Service<Request> for Site {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(self.answer(request).map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use axum::body::Body;
    use axum::routing::get;
    use hearth_core::random::SeededRandom;
    use parking_lot::Mutex;
    use tower::ServiceExt;

    use super::*;

    /// What the log would write.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_line_has_its_requests_id_whatever_is_left_out() {
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("warn")
            .with_writer(move || written.clone())
            .finish();
        let _log = tracing::subscriber::set_default(subscriber);
        let warn = || async {
            tracing::warn!("something is odd");
            "ok"
        };
        let ids = Ids::new(&SeededRandom::new(1), Vec::new());
        let site = Site::new(ids, Router::new().route("/", get(warn)));
        let request = http::Request::get("/").body(Body::empty()).expect("a request");
        let response = site.oneshot(request).await.expect("infallible");
        let id = response.headers()[X_REQUEST_ID]
            .to_str()
            .expect("an id")
            .to_owned();
        let text = String::from_utf8(lines.0.lock().clone()).expect("text");
        assert!(text.contains("something is odd") && text.contains(&id), "{text}");
    }

    #[test]
    fn only_proxies_may_name_requests() {
        let proxies = vec![Network::parse("127.0.0.1").expect("a network")];
        let ids = Ids::new(&SeededRandom::new(1), proxies);
        let check = |peer: &str, given: &'static str, kept: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_static(given));
            let id = ids.id_for(&headers, Some(PeerAddress(peer.parse().expect("an address"))));
            assert_eq!(&*id == given, kept, "{peer} {given}: {id}");
        };
        check("127.0.0.1", "abc-1", true);
        check("127.0.0.1", "with space", false);
        check("192.0.2.1", "abc-1", false);
        assert_ne!(
            ids.id_for(&HeaderMap::new(), None),
            ids.id_for(&HeaderMap::new(), None)
        );
    }
}
