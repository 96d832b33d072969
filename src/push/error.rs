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
