//! What may go wrong.

/// A failure of push.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] hearth_storage::Error),
    /// A room could not be read.
    #[error(transparent)]
    Rooms(#[from] hearth_rooms::Error),
    /// A user could not be read.
    #[error(transparent)]
    Users(#[from] hearth_users::Error),
}

impl Error {
    /// Whether the storage failed: then the same may succeed later.
    pub(crate) fn is_of_storage(&self) -> bool {
        matches!(
            self,
            Self::Storage(_)
                | Self::Rooms(hearth_rooms::Error::Storage(_))
                | Self::Users(hearth_users::Error::Storage(_))
        )
    }
}
