//! What media needs from other servers. `federation` implements it.

use std::time::Duration;

use async_trait::async_trait;

use crate::{error::Error, files::ByteStream, id::MediaId};

/// A file as another server gives it.
pub struct RemoteContent {
    /// Its media type; `application/octet-stream` where the server says nothing.
    pub content_type: Option<String>,
    /// Its name, from the server's `Content-Disposition`.
    pub file_name: Option<String>,
    /// The bytes; their number is limited by whoever reads them.
    pub body: ByteStream,
}

/// Fetches media of other servers.
#[async_trait]
pub trait RemoteMedia: Send + Sync {
    /// Asks the server of this media item for its content. `timeout` is how long the client wants
    /// to wait for content that is not uploaded yet. What the server does not have is
    /// [`Error::NotFound`]; a failed connection is [`Error::Remote`].
    async fn fetch(&self, media: &MediaId, timeout: Duration) -> Result<RemoteContent, Error>;
}
