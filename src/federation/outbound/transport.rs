//! How the queues reach other servers: the signed client, or a test's stand-in.

use async_trait::async_trait;
use bytes::Bytes;
use hearth_core::http::TransportError;

use crate::{Client, ClientError, FedRequest};

/// Why a server did not take something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its status, where it answered.
    pub status: Option<u16>,
    /// How long it asks to be left alone.
    pub retry_after_ms: Option<u64>,
    /// The sentence for the log.
    pub why: String,
    /// The sort of error where there was no status: one of a few words, for metrics.
    pub sort: &'static str,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

/// Asks other servers.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends a request and gives the body of an answer with a status of 2xx.
    async fn request(&self, request: FedRequest) -> Result<Bytes, Failure>;

    /// As [`request`](Self::request), for somebody who waits: a server that did not answer a moment ago is not asked.
    async fn ask(&self, request: FedRequest) -> Result<Bytes, Failure> {
        self.request(request).await
    }
}

#[async_trait]
impl Transport for Client {
    async fn request(&self, request: FedRequest) -> Result<Bytes, Failure> {
        // The queues have a back-off of their own.
        match self.request_anyway(request).await {
            Ok(response) => Ok(response.body),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    async fn ask(&self, request: FedRequest) -> Result<Bytes, Failure> {
        match Client::request(self, request).await {
            Ok(response) => Ok(response.body),
            Err(error) => Err(Failure::of(&error)),
        }
    }
}

impl Failure {
    fn of(error: &ClientError) -> Self {
        let sort = match error {
            ClientError::Status { .. } => "status",
            ClientError::Transport { error, .. } => match error {
                TransportError::Unreachable(_) => "unreachable",
                TransportError::Timeout => "timeout",
                TransportError::TooLarge => "too_large",
                TransportError::Refused(_) => "not_allowed",
            },
            ClientError::Resting { .. } => "resting",
            ClientError::Malformed { .. } => "malformed",
            ClientError::Request { .. } => "request",
        };
        let (status, retry_after_ms) = match error {
            ClientError::Status { status, body, .. } => {
                let after = body.get("retry_after_ms").and_then(serde_json::Value::as_u64);
                (Some(*status), after)
            }
            _ => (None, None),
        };
        Self {
            status,
            retry_after_ms,
            why: error.to_string(),
            sort,
        }
    }

    /// What sort of error it was, without anything that differs from server to server.
    pub fn class(&self) -> String {
        match self.status {
            Some(status) => format!("status_{status}"),
            None => self.sort.to_owned(),
        }
    }
}
