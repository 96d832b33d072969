//! Outbound HTTP as a trait, and what the server tells handlers about an inbound request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// Where an outbound request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// `scheme://authority`, without a path.
    Url(String),
    /// A Matrix server name; federation resolves it to an address and a TLS name.
    Server(String),
}

/// One request to another machine.
#[derive(Clone, Debug)]
pub struct OutboundRequest {
    /// Where it goes.
    pub destination: Destination,
    /// The HTTP method.
    pub method: ::http::Method,
    /// The path, beginning with `/`, and the query.
    pub path_and_query: String,
    /// Headers to send; `Host` and `Content-Length` are added by the transport.
    pub headers: ::http::HeaderMap,
    /// The body, which may be empty.
    pub body: Bytes,
    /// The time for the whole exchange.
    pub timeout: Duration,
    /// A longer answer is refused with [`TransportError::TooLarge`].
    pub max_response_bytes: usize,
}

/// The answer to an [`OutboundRequest`]. Any status counts as an answer.
#[derive(Clone, Debug)]
pub struct OutboundResponse {
    /// The status.
    pub status: ::http::StatusCode,
    /// The headers.
    pub headers: ::http::HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection, a broken connection, or an answer that is not HTTP.
    #[error("the other side cannot be reached: {0}")]
    Unreachable(String),
    /// The time ran out.
    #[error("the other side did not answer in time")]
    Timeout,
    /// The answer was longer than allowed.
    #[error("the answer is longer than allowed")]
    TooLarge,
    /// We do not send this request: the address is private, or the URL is not one we support.
    #[error("the request is not allowed: {0}")]
    Refused(String),
}

/// Sends requests to other machines. Redirects are never followed: the caller sees the 3xx.
#[async_trait]
pub trait Outbound: Send + Sync {
    /// Sends one request and reads the whole answer.
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError>;
}

/// The outbound transport as it is handed around.
pub type SharedOutbound = Arc<dyn Outbound>;

/// The address of the client, after trusted proxies; an extension of each inbound request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

/// The id that names a request in logs and in `x-request-id`; an extension of each inbound request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

/// An [`Outbound`] for tests that must reach nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOutbound;

#[async_trait]
impl Outbound for NoOutbound {
    async fn send(&self, _: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        Err(TransportError::Unreachable(
            "this server has no outbound network".to_owned(),
        ))
    }
}
