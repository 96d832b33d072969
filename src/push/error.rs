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
    /// Whether the storage failed in a way that may pass: then the same may succeed later.
    pub(crate) fn is_of_storage(&self) -> bool {
        match self {
            Self::Storage(error) => error.may_pass(),
            Self::Rooms(error) => error.is_of_storage(),
            Self::Users(error) => error.is_of_storage(),
        }
    }
}
