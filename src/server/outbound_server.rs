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
use crate::outbound::{Clients, GuardedResolver, UrlTransport};

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
        let (resolver, guard) = (self.resolver.clone(), self.guard);
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
