//! What can go wrong with media. The sentences are shown to clients.

/// Why a media operation was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such media, or it is quarantined.
    #[error("There is no such media")]
    NotFound,
    /// The media id was announced but nothing was uploaded in time.
    #[error("The media has not been uploaded yet")]
    NotYetUploaded,
    /// The media id already has content.
    #[error("The media id already has content")]
    AlreadyUploaded,
    /// The media id was announced by somebody else.
    #[error("The media id was created by another user")]
    NotOwner,
    /// The upload is larger than allowed.
    #[error("The upload is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The largest allowed upload.
        limit_bytes: u64,
    },
    /// The remote file is larger than allowed here.
    #[error("The remote file is larger than {limit_bytes} bytes")]
    RemoteTooLarge {
        /// The largest allowed file.
        limit_bytes: u64,
    },
    /// The user has announced too many media ids without uploading to them.
    #[error("Too many media ids wait for an upload")]
    PendingLimit {
        /// When the next announced id expires.
        retry_after_ms: u64,
    },
    /// A parameter does not make sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The content is no picture that we can read.
    #[error("No thumbnail can be made of this content")]
    NotAnImage,
    /// The picture has too many pixels.
    #[error("The picture is too large for a thumbnail")]
    ImageTooLarge,
    /// A picture of another server has too many pixels.
    #[error("The remote picture is too large for a thumbnail")]
    RemoteImageTooLarge,
    /// The other server could not be asked.
    #[error("The other server did not give the media: {0}")]
    Remote(String),
    /// The operator does not want this page previewed.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// A page, or its picture, could not be had.
    #[error("The page cannot be previewed: {0}")]
    Page(&'static str),
    /// The client's body ended with an error.
    #[error("The upload was interrupted")]
    Interrupted,
    /// The disk failed.
    #[error("media file: {0}")]
    Io(#[from] std::io::Error),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] hearth_storage::Error),
}
