//! What can go wrong in a sync.

/// Every way in which a sync fails. The API maps each to one Matrix error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A batch token cannot be read (M_INVALID_PARAM).
    #[error("the token is not valid: {0}")]
    BadToken(&'static str),
    /// A position of sliding sync is not one that can be gone on from (M_UNKNOWN_POS).
    #[error("the position is not known (any more): begin anew without one")]
    UnknownPos,
    /// A filter cannot be read (M_BAD_JSON), with what is wrong.
    #[error("the filter is not valid: {0}")]
    BadFilter(String),
    /// There is no filter with that id (M_INVALID_PARAM).
    #[error("there is no such filter")]
    NoFilter,
    /// The answer would have more events than it may.
    #[error("the answer has too many events")]
    Large,
    /// A room could not be read.
    #[error(transparent)]
    Room(#[from] hearth_rooms::Error),
    /// The user's data could not be read.
    #[error(transparent)]
    User(#[from] hearth_users::Error),
    /// The storage layer failed.
    #[error(transparent)]
    Storage(#[from] hearth_storage::Error),
    /// What was computed could not be written as JSON.
    #[error("an answer could not be written: {0}")]
    Render(#[from] serde_json::Error),
}
