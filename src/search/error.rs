//! What may go wrong.

/// A failure of search.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A token that this server did not give.
    #[error("next_batch is not a token of a search on this server")]
    BadToken,
    /// The index failed.
    #[error("the search index failed: {0}")]
    Index(#[from] tantivy::TantivyError),
    /// The folder of the index failed.
    #[error("the search index: {0}")]
    Io(#[from] std::io::Error),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] hearth_storage::Error),
    /// A step of the index's upkeep panicked, which is in the log.
    #[error("a step of the search index's upkeep panicked")]
    Panicked,
    /// A room could not be read.
    #[error(transparent)]
    Rooms(#[from] hearth_rooms::Error),
}

impl Error {
    /// Whether one room's data is to blame, and not index or storage: then the others go on.
    pub(crate) fn is_of_one_room(&self) -> bool {
        match self {
            Self::Rooms(error) => !error.is_of_storage(),
            Self::BadToken | Self::Index(_) | Self::Io(_) | Self::Storage(_) | Self::Panicked => false,
        }
    }
}
