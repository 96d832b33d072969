//! Accepting connections: TCP and TLS, limits on their number and on slow clients, and an orderly end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt;
use hearth_api::edge::PeerAddress;
use hearth_core::config::{Api, ListenerConfig};
use hearth_core::metrics::HTTP_CONNECTIONS;
use hearth_core::{Shutdown, limits, tasks};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::Error;
use crate::request::Site;
use crate::tls::Certificate;
use crate::unread_body::{self, Rest};

/// After a failed accept (too many open files) the listener waits before it tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections may wait to be accepted. After a restart all clients come back at once, and the
/// kernel answers those beyond it with resets.
const WAITING_CONNECTIONS_MAX: u32 = 4096;

/// An open listener that does not accept yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    apis: Vec<Api>,
    certificate: Option<Arc<Certificate>>,
    acceptor: Option<TlsAcceptor>,
}

impl Bound {
    /// Opens the address and reads the certificate.
    pub async fn open(config: &ListenerConfig) -> Result<Self, Error> {
        let certificate = match (&config.tls_certificate, &config.tls_key) {
            (Some(chain), Some(key)) if config.tls => Some(Certificate::load(chain, key)?),
            _ => None,
        };
        let acceptor = match &certificate {
            Some(certificate) => Some(TlsAcceptor::from(certificate.server_config()?)),
            None => None,
        };
        let failed = |error: std::io::Error| Error::Listen {
            address: config.address.clone(),
            reason: error.to_string(),
        };
        let listener = bind(&config.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            apis: config.apis.clone(),
            certificate,
            acceptor,
        })
    }

    /// The address, with the port that the system chose if the configured one was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the listener serves.
    pub fn apis(&self) -> &[Api] {
        &self.apis
    }

    /// The address as a URL.
    pub fn url(&self) -> String {
        let scheme = if self.acceptor.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }
}

/// Binds the first of a name's addresses that can be bound.
async fn bind(address: &str) -> std::io::Result<TcpListener> {
    let mut failure = std::io::ErrorKind::AddrNotAvailable.into();
    for address in tokio::net::lookup_host(address).await? {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        let bound = socket.bind(address);
        match bound.and_then(|()| socket.listen(WAITING_CONNECTIONS_MAX)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// What all listeners of a server share.
pub struct Serving {
    shutdown: Shutdown,
    places: Arc<Semaphore>,
    graceful: Arc<GracefulShutdown>,
    listeners: Vec<tokio::task::JoinHandle<()>>,
}

impl Serving {
    /// At most `max_connections` at once.
    pub fn new(shutdown: Shutdown, max_connections: usize) -> Self {
        Self {
            shutdown,
            places: Arc::new(Semaphore::new(max_connections)),
            graceful: Arc::new(GracefulShutdown::new()),
            listeners: Vec::new(),
        }
    }

    /// Accepts on a listener until the server stops.
    pub fn start(&mut self, bound: Bound, site: Site) {
        if let Some(certificate) = &bound.certificate {
            certificate.watch(self.shutdown.clone());
        }
        let accepting = Accepting {
            shutdown: self.shutdown.clone(),
            places: self.places.clone(),
            graceful: self.graceful.clone(),
            site,
        };
        self.listeners
            .push(tasks::spawn("listener", accepting.run(bound)));
    }

    /// Waits until the open connections have answered what they were asked, but not for ever.
    pub async fn drain(self) {
        // Only once nobody accepts any more are all connections known.
        for listener in self.listeners {
            let _ = listener.await;
        }
        let Some(graceful) = Arc::into_inner(self.graceful) else {
            return;
        };
        if tokio::time::timeout(limits::SHUTDOWN_DRAIN, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("some requests did not end in time, their connections are cut");
        }
    }
}

struct Accepting {
    shutdown: Shutdown,
    places: Arc<Semaphore>,
    graceful: Arc<GracefulShutdown>,
    site: Site,
}

impl Accepting {
    async fn run(self, bound: Bound) {
        while let Some((stream, peer, place)) = self.next(&bound.listener).await {
            let watcher = self.graceful.watcher();
            let connection = serve(stream, peer, bound.acceptor.clone(), self.site.clone(), watcher);
            tasks::spawn("connection", async move {
                metrics::gauge!(HTTP_CONNECTIONS).increment(1.0);
                connection.await;
                metrics::gauge!(HTTP_CONNECTIONS).decrement(1.0);
                drop(place);
            });
        }
    }

    /// The next connection, once there is a place for it; nothing when the server stops.
    async fn next(
        &self,
        listener: &TcpListener,
    ) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let place = tokio::select! {
            biased;
            () = self.shutdown.wait() => return None,
            place = self.places.clone().acquire_owned() => place.ok()?,
        };
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.wait() => return None,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => return Some((stream, peer, place)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    site: Site,
    watcher: Watcher,
) {
    // Answers are written whole; waiting for more to send only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    let Some(acceptor) = acceptor else {
        return serve_http1(stream, peer, site, watcher).await;
    };
    match tokio::time::timeout(limits::TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            serve_http2(stream, peer, site, watcher).await;
        }
        Ok(Ok(stream)) => serve_http1(stream, peer, site, watcher).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

pub(crate) async fn serve_http1<S>(stream: S, peer: SocketAddr, site: Site, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_READ_TIMEOUT)
        .max_headers(limits::HEADERS_MAX)
        .max_header_size(limits::HEADER_MAX_BYTES);
    let service = service_fn(move |request| answer_http1(request, peer, site.clone()));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn serve_http2<S>(stream: S, peer: SocketAddr, site: Site, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(limits::HEADER_READ_TIMEOUT)
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .max_header_list_size(limits::HEADER_MAX_BYTES as u32);
    let service = service_fn(move |request| answer(request, peer, &site));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer_http1(
    request: hyper::Request<Incoming>,
    peer: SocketAddr,
    site: Site,
) -> Result<Response, Infallible> {
    if request.body().is_end_stream() {
        return answer(request, peer, &site).await;
    }
    let (rest, is_sent) = (Rest::default(), unread_body::is_sent_unasked(&request));
    let mut response = answer(rest.watch(request), peer, &site).await?;
    rest.settle(is_sent, &mut response).await;
    Ok(response)
}

fn answer<B>(
    mut request: hyper::Request<B>,
    peer: SocketAddr,
    site: &Site,
) -> impl Future<Output = Result<Response, Infallible>> + Send + use<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let address = PeerAddress(peer.ip().to_canonical());
    request.extensions_mut().insert(address);
    site.answer(request).map(Ok)
}
