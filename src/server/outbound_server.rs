//! Requests to Matrix servers by their names: resolved, and then connected to so that TLS proves the right name.
//!
//! A server with a port of its own is an ordinary URL. One without is a URL without a port, `https://example.org/`, on a
//! client that takes address and port together from the server's SRV records: so the `Host` header, the certificate's name
//! and the place of the connection are each what the specification says.

use std::net::SocketAddr;
use std::sync::Arc;

use hearth_core::http::{OutboundRequest, OutboundResponse, TransportError};
use hearth_federation::Resolver;
use hearth_federation::resolver::Route;
use http::HeaderValue;
use http::header::HOST;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::Error;
use crate::guard::GuardedResolver;
use crate::outbound::{Clients, UrlTransport};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Idle connections that are kept to one server.
const IDLE_CONNECTIONS_MAX: usize = 4;

/// Requests to servers by their names.
pub(crate) struct ServerTransport {
    resolver: Arc<Resolver>,
    /// For names without a port.
    by_name: reqwest::Client,
    /// For addresses without a port, whose `Host` header is not what the URL says. HTTP/2 has no such header.
    by_address: reqwest::Client,
}

impl ServerTransport {
    pub(crate) fn new(clients: &Clients, resolver: Arc<Resolver>) -> Result<Self, Error> {
        let endpoints = EndpointResolver {
            resolver: resolver.clone(),
            guard: clients.guard(),
        };
        Ok(Self {
            resolver,
            by_name: clients.build(Arc::new(endpoints), |builder| {
                builder.pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            })?,
            by_address: clients.build(Arc::new(clients.guard()), |builder| {
                builder.http1_only().pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            })?,
        })
    }

    /// Sends a request to a server. The time limit covers the look-ups too.
    pub(crate) async fn send(
        &self,
        url: &UrlTransport,
        server: &str,
        request: OutboundRequest,
    ) -> Result<OutboundResponse, TransportError> {
        let timeout = request.timeout;
        match tokio::time::timeout(timeout, self.exchange(url, server, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(TransportError::Timeout),
        }
    }

    async fn exchange(
        &self,
        url: &UrlTransport,
        server: &str,
        mut request: OutboundRequest,
    ) -> Result<OutboundResponse, TransportError> {
        let Some(route) = self.resolver.route(server).await else {
            return Err(TransportError::Refused(format!("{server:?} is no server name")));
        };
        let (client, base) = match route {
            Route::Name(host) => (&self.by_name, format!("https://{host}")),
            Route::Port { host, port, header } => {
                let authority = format!("{host}:{port}");
                if header == authority {
                    (url.client(), format!("https://{authority}"))
                } else {
                    let header = HeaderValue::from_str(&header)
                        .map_err(|_| TransportError::Refused("the server's name is no header".to_owned()))?;
                    request.headers.insert(HOST, header);
                    (&self.by_address, format!("https://{authority}"))
                }
            }
        };
        url.exchange(client, &base, request).await
    }
}

/// Looks up where the servers of names without a port are.
struct EndpointResolver {
    resolver: Arc<Resolver>,
    guard: GuardedResolver,
}

impl Resolve for EndpointResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, guard) = (self.resolver.clone(), self.guard.clone());
        Box::pin(async move {
            let mut addresses: Vec<SocketAddr> = Vec::new();
            let mut failure = None;
            for endpoint in resolver.endpoints(name.as_str()).await {
                match guard.lookup(&endpoint.host, endpoint.port).await {
                    Ok(found) => addresses.extend(found),
                    Err(error) => failure = Some(error),
                }
            }
            match failure {
                Some(error) if addresses.is_empty() => Err(error),
                _ => {
                    addresses.truncate(ADDRESSES_MAX);
                    Ok(Box::new(addresses.into_iter()) as Addrs)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::path::PathBuf;
    use std::time::Duration;

    use async_trait::async_trait;
    use hearth_core::Config;
    use hearth_core::clock::SystemClock;
    use hearth_core::http::{Destination, Outbound};
    use hearth_core::random::OsRandom;
    use hearth_federation::resolver::{Dns, Srv};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;

    use super::*;
    use crate::outbound::HttpOutbound;
    use crate::tls::Certificate;

    /// A file of `testdata`: a made-up authority, and a certificate of it for `localhost` alone.
    fn file(name: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata")).join(name)
    }

    /// A TLS server that answers with what it was called.
    async fn server(protocol: &'static [u8]) -> u16 {
        let certificate =
            Certificate::load(&file("localhost.pem"), &file("localhost.key")).expect("a certificate");
        let mut config = (*certificate.server_config().expect("settings")).clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        hearth_core::tasks::spawn("test server", async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let acceptor = acceptor.clone();
                hearth_core::tasks::spawn("test connection", async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let echo = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                        let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
                        let authority = request.uri().authority().map(|authority| authority.as_str());
                        let called = header.or(authority).unwrap_or_default().to_owned();
                        Ok::<_, Infallible>(http::Response::new(called))
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), echo).await);
                });
            }
        });
        port
    }

    struct OneRecord(u16);

    #[async_trait]
    impl Dns for OneRecord {
        async fn srv(&self, name: &str) -> Result<Vec<Srv>, String> {
            let record = Srv {
                priority: 1,
                weight: 1,
                port: self.0,
                target: "127.0.0.1".to_owned(),
            };
            Ok(vec![record]
                .into_iter()
                .filter(|_| name == "_matrix-fed._tcp.localhost.")
                .collect())
        }
    }

    fn outbound(port: u16, allow_private: bool) -> HttpOutbound {
        let mut config = Config::for_tests("example.org");
        config.federation_allow_private_addresses = allow_private;
        config.federation_extra_ca = Some(file("authority.pem"));
        let dns = Arc::new(OneRecord(port));
        HttpOutbound::with_dns(&config, dns, Arc::new(SystemClock), Arc::new(OsRandom)).expect("a transport")
    }

    async fn ask(outbound: &HttpOutbound, server: &str) -> Result<String, TransportError> {
        let request = OutboundRequest {
            destination: Destination::Server(server.to_owned()),
            method: http::Method::GET,
            path_and_query: "/".to_owned(),
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            timeout: Duration::from_secs(20),
            max_response_bytes: 1_000,
        };
        let response = outbound.send(request).await?;
        Ok(String::from_utf8_lossy(&response.body).into_owned())
    }

    #[tokio::test]
    async fn servers_are_found_and_prove_their_names() {
        for protocol in [&b"h2"[..], b"http/1.1"] {
            let port = server(protocol).await;
            let outbound = outbound(port, true);
            // Nobody delegates on port 443 here, so the SRV record counts; its target is not what TLS proves.
            assert_eq!(ask(&outbound, "localhost").await.as_deref(), Ok("localhost"));
            let with_port = format!("localhost:{port}");
            assert_eq!(ask(&outbound, &with_port).await, Ok(with_port.clone()));
            // The certificate is not for the address.
            let by_address = ask(&outbound, &format!("127.0.0.1:{port}")).await;
            assert!(
                matches!(by_address, Err(TransportError::Unreachable(_))),
                "{by_address:?}"
            );
        }
    }

    #[tokio::test]
    async fn private_addresses_are_refused_however_they_are_named() {
        let port = server(b"h2").await;
        let outbound = outbound(port, false);
        let names = [
            "localhost".to_owned(),
            format!("localhost:{port}"),
            format!("127.0.0.1:{port}"),
            "127.0.0.1".to_owned(),
            "[::1]".to_owned(),
            "a b".to_owned(),
        ];
        for name in names {
            let result = ask(&outbound, &name).await;
            assert!(
                matches!(result, Err(TransportError::Refused(_))),
                "{name}: {result:?}"
            );
        }
    }
}
