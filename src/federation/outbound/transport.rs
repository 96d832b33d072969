//! How the queues reach other servers: the signed client, or a test's stand-in.

use async_trait::async_trait;
use bytes::Bytes;

use crate::FedRequest;

/// Why a server did not take something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its status, where it answered.
    pub status: Option<u16>,
    /// How long it asks to be left alone.
    pub retry_after_ms: Option<u64>,
    /// The sentence for the log.
    pub why: String,
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
}
