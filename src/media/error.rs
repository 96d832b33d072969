//! What can go wrong with media, and how clients see it.

use hearth_core::error::MatrixError;

/// Why a media operation was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such media, or it is quarantined.
    #[error("there is no such media")]
    NotFound,
    /// The media id was announced but nothing was uploaded in time.
    #[error("the media has not been uploaded yet")]
    NotYetUploaded,
    /// The media id already has content.
    #[error("the media id already has content")]
    AlreadyUploaded,
    /// The media id was announced by somebody else.
    #[error("the media id was created by another user")]
    NotOwner,
    /// The upload is larger than allowed.
    #[error("the upload is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The largest allowed upload.
        limit_bytes: u64,
    },
    /// The remote file is larger than allowed here.
    #[error("the remote file is larger than {limit_bytes} bytes")]
    RemoteTooLarge {
        /// The largest allowed file.
        limit_bytes: u64,
    },
    /// The user has announced too many media ids without uploading to them.
    #[error("too many media ids wait for an upload")]
    PendingLimit {
        /// When the next announced id expires.
        retry_after_ms: u64,
    },
    /// A parameter does not make sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The content is no picture that we can read.
    #[error("no thumbnail can be made of this content")]
    NotAnImage,
    /// The picture has too many pixels.
    #[error("the picture is too large for a thumbnail")]
    ImageTooLarge,
    /// The other server could not be asked.
    #[error("the other server did not give the media: {0}")]
    Remote(String),
    /// The client's body ended with an error.
    #[error("the upload was interrupted")]
    Interrupted,
    /// The disk failed.
    #[error("media file: {0}")]
    Io(#[from] std::io::Error),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] hearth_storage::Error),
}

impl Error {
    /// Whether a person must look at it.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Storage(_))
    }
}

impl From<Error> for MatrixError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::NotFound => MatrixError::not_found("There is no such media"),
            Error::NotYetUploaded => {
                MatrixError::new(504, "M_NOT_YET_UPLOADED", "The media has not been uploaded yet")
            }
            Error::AlreadyUploaded => MatrixError::new(
                409,
                "M_CANNOT_OVERWRITE_MEDIA",
                "The media id already has content",
            ),
            Error::NotOwner => MatrixError::forbidden("The media id was created by another user"),
            Error::TooLarge { .. } => MatrixError::too_large(message),
            Error::RemoteTooLarge { .. } => MatrixError::new(502, "M_TOO_LARGE", message),
            Error::PendingLimit { retry_after_ms } => MatrixError::limit_exceeded(retry_after_ms),
            Error::Invalid(sentence) => MatrixError::invalid_param(sentence),
            Error::NotAnImage => MatrixError::unknown(message),
            Error::ImageTooLarge => MatrixError::too_large(message),
            Error::Remote(_) => MatrixError::new(502, "M_UNKNOWN", message),
            Error::Interrupted => MatrixError::unknown(message),
            Error::Storage(hearth_storage::Error::DiskFull) => MatrixError::new(
                507,
                "M_RESOURCE_LIMIT_EXCEEDED",
                "The server has no space for more media",
            ),
            Error::Io(_) | Error::Storage(_) => {
                MatrixError::internal("Something went wrong inside the server")
            }
        }
    }
}
