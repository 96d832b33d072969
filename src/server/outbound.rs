//! Outbound HTTP by reqwest, guarded: no private addresses unless they are allowed, no redirects, no
//! answer longer than asked for.
//!
//! The guard looks at the addresses that are really connected to: a name is resolved here, its private
//! addresses are dropped, and the connection goes to what is left. A name that resolves anew to a
//! private address (DNS rebinding) meets the same check.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hearth_core::http::{
    Destination, Outbound, OutboundRequest, OutboundResponse, SharedOutbound, TransportError,
};
use hearth_core::metrics::OUTBOUND_REQUESTS;
use hearth_core::{Config, SharedClock, SharedRandom, VERSION, limits};
use hearth_federation::Resolver;
use hearth_federation::resolver::Dns;
use reqwest::dns::Resolve;

use crate::Error;
use crate::dns::SystemDns;
use crate::guard::{GuardedResolver, NotPublic};
use crate::outbound_server::ServerTransport;

/// The transport of a real server.
pub struct HttpOutbound {
    url: Arc<UrlTransport>,
    server: ServerTransport,
}

impl HttpOutbound {
    /// A transport by the configuration's rules.
    pub fn new(config: &Config, clock: SharedClock, random: SharedRandom) -> Result<Self, Error> {
        Self::with_dns(config, Arc::new(SystemDns::configured()), clock, random)
    }

    /// As [`HttpOutbound::new`], with SRV records from elsewhere.
    pub fn with_dns(
        config: &Config,
        dns: Arc<dyn Dns>,
        clock: SharedClock,
        random: SharedRandom,
    ) -> Result<Self, Error> {
        let clients = Clients::new(config)?;
        let url = Arc::new(UrlTransport::new(&clients)?);
        let resolver = Arc::new(Resolver::new(url.clone(), dns, clock, random));
        let server = ServerTransport::new(&clients, resolver)?;
        Ok(Self { url, server })
    }
}

/// The transport for pages that users want previewed: a stranger chooses the address, so that neither the settings nor
/// the certificate authorities of federation hold for it.
pub fn for_previews(config: &Config) -> Result<SharedOutbound, Error> {
    crate::tls::provider();
    let clients = Clients {
        extra: Vec::new(),
        guard: GuardedResolver {
            allow_private: false,
            allow: config.url_preview.allow_private_networks.clone().into(),
        },
    };
    Ok(Arc::new(UrlTransport::new(&clients)?))
}

/// The transport to application services: the operator wrote down where they are, which is most often this machine or
/// its private network.
pub fn for_appservices(config: &Config) -> Result<SharedOutbound, Error> {
    let mut clients = Clients::new(config)?;
    clients.guard.allow_private = true;
    Ok(Arc::new(UrlTransport::new(&clients)?))
}

/// Makes HTTP clients that all follow the same rules.
pub(crate) struct Clients {
    extra: Vec<reqwest::Certificate>,
    guard: GuardedResolver,
}

impl Clients {
    fn new(config: &Config) -> Result<Self, Error> {
        crate::tls::provider();
        let extra = match &config.federation_extra_ca {
            Some(file) => read_authorities(file)?,
            None => Vec::new(),
        };
        Ok(Self {
            extra,
            guard: GuardedResolver {
                allow_private: config.federation_allow_private_addresses,
                allow: Arc::default(),
            },
        })
    }

    /// The look-up that gives only addresses to which we may connect.
    pub(crate) fn guard(&self) -> GuardedResolver {
        self.guard.clone()
    }

    /// A client that takes addresses from `addresses` only.
    pub(crate) fn build<R: Resolve + 'static>(
        &self,
        addresses: Arc<R>,
        adjust: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<reqwest::Client, Error> {
        let builder = || {
            adjust(
                reqwest::Client::builder()
                    .user_agent(format!("Hearth/{VERSION}"))
                    .redirect(reqwest::redirect::Policy::none())
                    .no_proxy()
                    .connect_timeout(limits::OUTBOUND_CONNECT_TIMEOUT)
                    .dns_resolver(addresses.clone()),
            )
        };
        let client = builder().tls_certs_merge(self.extra.clone()).build().or_else(|error| {
            // A container without certificate authorities can still chat locally.
            tracing::warn!(%error, "the system's certificate authorities cannot be used, https to others will fail");
            builder().tls_certs_only(self.extra.clone()).build()
        });
        client.map_err(|error| Error::Start {
            part: "outbound HTTP",
            reason: error.to_string(),
        })
    }
}

/// Requests to URLs.
pub(crate) struct UrlTransport {
    client: reqwest::Client,
    guard: GuardedResolver,
}

impl UrlTransport {
    fn new(clients: &Clients) -> Result<Self, Error> {
        Ok(Self {
            client: clients.build(Arc::new(clients.guard()), |builder| builder)?,
            guard: clients.guard(),
        })
    }

    /// The resolver sees names only; an address in the URL is checked here.
    fn check_url(&self, base: &str, path_and_query: &str) -> Result<reqwest::Url, TransportError> {
        let refused = |reason: &str| TransportError::Refused(reason.to_owned());
        if !path_and_query.starts_with('/') {
            return Err(refused("the path does not begin with a slash"));
        }
        let base = base.strip_suffix('/').unwrap_or(base);
        let url =
            reqwest::Url::parse(&format!("{base}{path_and_query}")).map_err(|_| refused("not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused("only http and https are supported"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("the URL has a user name"));
        }
        let host = url.host_str().ok_or_else(|| refused("the URL has no host"))?;
        let literal = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        if literal.is_ok_and(|address| !self.guard.allows(address)) {
            return Err(refused("the address is not public"));
        }
        Ok(url)
    }

    /// Sends a request with a client to a base URL.
    pub(crate) async fn exchange(
        &self,
        client: &reqwest::Client,
        base: &str,
        request: OutboundRequest,
    ) -> Result<OutboundResponse, TransportError> {
        let url = self.check_url(base, &request.path_and_query)?;
        let sent = client
            .request(request.method, url)
            .headers(request.headers)
            .body(request.body)
            .timeout(request.timeout)
            .send()
            .await;
        let mut response = sent.map_err(|error| transport_error(&error))?;
        let limit = request.max_response_bytes;
        if response
            .content_length()
            .is_some_and(|length| length > limit as u64)
        {
            return Err(TransportError::TooLarge);
        }
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body = read_body(response, limit).await?;
        Ok(OutboundResponse {
            status,
            headers,
            body,
        })
    }

    /// The client for URLs.
    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }
}

#[async_trait]
impl Outbound for UrlTransport {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        match request.destination.clone() {
            Destination::Url(base) => self.exchange(&self.client, &base, request).await,
            Destination::Server(name) => Err(TransportError::Refused(format!("{name} is no URL"))),
        }
    }
}

async fn read_body(mut response: reqwest::Response, limit: usize) -> Result<Bytes, TransportError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transport_error(&error))? {
        if body.len() + chunk.len() > limit {
            return Err(TransportError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn read_authorities(file: &Path) -> Result<Vec<reqwest::Certificate>, Error> {
    let unusable = |reason: String| Error::Certificate {
        file: file.display().to_string(),
        reason,
    };
    let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))
}

fn transport_error(error: &reqwest::Error) -> TransportError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut innermost = String::new();
    while let Some(current) = cause {
        if current.is::<NotPublic>() {
            return TransportError::Refused(NotPublic.to_string());
        }
        innermost = current.to_string();
        cause = current.source();
    }
    // The innermost cause says most and, unlike the outer ones, does not repeat the URL.
    if error.is_timeout() {
        TransportError::Timeout
    } else {
        TransportError::Unreachable(innermost)
    }
}

#[async_trait]
impl Outbound for HttpOutbound {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        let result = match request.destination.clone() {
            Destination::Url(_) => self.url.send(request).await,
            Destination::Server(name) => self.server.send(&self.url, &name, request).await,
        };
        let outcome = match &result {
            Ok(response) if response.status.is_success() => "success",
            Ok(_) => "status",
            Err(TransportError::Unreachable(_)) => "unreachable",
            Err(TransportError::Timeout) => "timeout",
            Err(TransportError::TooLarge) => "too_large",
            Err(TransportError::Refused(_)) => "refused",
        };
        metrics::counter!(OUTBOUND_REQUESTS, "outcome" => outcome).increment(1);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use hearth_core::clock::SystemClock;
    use hearth_core::config::Network;
    use hearth_core::random::OsRandom;

    fn outbound(allow_private: bool) -> HttpOutbound {
        let mut config = Config::for_tests("example.org");
        config.federation_allow_private_addresses = allow_private;
        HttpOutbound::new(&config, Arc::new(SystemClock), Arc::new(OsRandom)).expect("a transport")
    }

    fn get(base: &str, path: &str) -> OutboundRequest {
        OutboundRequest {
            destination: Destination::Url(base.to_owned()),
            method: http::Method::GET,
            path_and_query: path.to_owned(),
            headers: http::HeaderMap::new(),
            body: Bytes::new(),
            timeout: Duration::from_secs(5),
            max_response_bytes: 100,
        }
    }

    /// Answers every connection with the same bytes.
    async fn answering(answer: String) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        hearth_core::tasks::spawn("test peer", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0u8; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn private_addresses_are_refused() {
        let base = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned()).await;
        let by_name = base.replace("127.0.0.1", "localhost");
        for url in [
            base.as_str(),
            by_name.as_str(),
            "http://[::1]:1",
            "http://0x7f000001",
            "http://127.1",
            "http://2130706433",
        ] {
            let result = outbound(false).send(get(url, "/")).await;
            assert!(
                matches!(result, Err(TransportError::Refused(_))),
                "{url}: {result:?}"
            );
        }
        for url in ["ftp://1.1.1.1", "file://", "http://user@1.1.1.1", "http://"] {
            let result = outbound(false).send(get(url, "/")).await;
            assert!(
                matches!(result, Err(TransportError::Refused(_))),
                "{url}: {result:?}"
            );
        }
        let response = outbound(true).send(get(&base, "/")).await.expect("allowed");
        assert_eq!(response.body, "hi");
        assert_eq!(
            outbound(true)
                .send(get(&by_name, "/"))
                .await
                .expect("allowed")
                .status,
            200
        );
    }

    #[tokio::test]
    async fn previews_reach_only_what_their_own_setting_allows() {
        let base = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned()).await;
        let by_name = base.replace("127.0.0.1", "localhost");
        let mut config = Config::for_tests("example.org");
        config.federation_allow_private_addresses = true;
        let closed = for_previews(&config).expect("a transport");
        config.url_preview.allow_private_networks = vec![Network::parse("127.0.0.0/8").expect("a network")];
        let open = for_previews(&config).expect("a transport");
        for url in [&base, &by_name] {
            let result = closed.send(get(url, "/")).await;
            assert!(
                matches!(result, Err(TransportError::Refused(_))),
                "{url}: {result:?}"
            );
            assert_eq!(open.send(get(url, "/")).await.expect("allowed").body, "hi");
        }
        let result = open.send(get("http://10.0.0.1", "/")).await;
        assert!(matches!(result, Err(TransportError::Refused(_))), "{result:?}");
    }

    #[tokio::test]
    async fn application_services_are_reached_at_private_addresses() {
        let base = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned()).await;
        let by_name = base.replace("127.0.0.1", "localhost");
        let outbound = for_appservices(&Config::for_tests("example.org")).expect("a transport");
        for url in [&base, &by_name] {
            assert_eq!(outbound.send(get(url, "/")).await.expect("allowed").body, "hi");
        }
    }

    #[tokio::test]
    async fn redirects_are_not_followed_and_long_answers_refused() {
        let redirect =
            answering("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
        assert_eq!(
            outbound(true)
                .send(get(&redirect, "/"))
                .await
                .expect("an answer")
                .status,
            302
        );
        for head in ["Content-Length: 200", "Connection: close"] {
            let base = answering(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{}", "x".repeat(200))).await;
            assert_eq!(
                outbound(true).send(get(&base, "/")).await.expect_err("too long"),
                TransportError::TooLarge
            );
        }
    }

    #[tokio::test]
    async fn a_dead_peer_is_unreachable() {
        let result = outbound(true).send(get("http://127.0.0.1:1", "/")).await;
        assert!(
            matches!(result, Err(TransportError::Unreachable(_))),
            "{result:?}"
        );
    }
}
