//! What can go wrong in a room.

/// Every way in which an operation on a room fails. The API maps each to one Matrix error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The authorization rules or a policy of the server refuse the action; the sentence says why.
    #[error("{0}")]
    Forbidden(String),
    /// The room, event, alias or state does not exist, or the user may not know that it does.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense; the sentence says what is wrong with it.
    #[error("{0}")]
    Invalid(String),
    /// A parameter has a value that cannot be (M_INVALID_PARAM).
    #[error("{0}")]
    InvalidParam(String),
    /// The event is larger than an event may be (M_TOO_LARGE).
    #[error("{0}")]
    TooLarge(String),
    /// The room version is not known here (M_UNSUPPORTED_ROOM_VERSION).
    #[error("room version {0} is not supported")]
    UnsupportedVersion(String),
    /// The joining server, which may be this one, does not know the room's version (M_INCOMPATIBLE_ROOM_VERSION).
    #[error("the room has version {0}, which the joining server does not support")]
    IncompatibleVersion(String),
    /// The initial state or power levels of a new room are refused by its own rules (M_INVALID_ROOM_STATE).
    #[error("{0}")]
    InvalidRoomState(String),
    /// The alias is taken (M_ROOM_IN_USE).
    #[error("the alias {0} is taken")]
    AliasInUse(String),
    /// The canonical alias does not point to the room (M_BAD_ALIAS).
    #[error("{0}")]
    BadAlias(String),
    /// The user has put the same annotation on the event before (M_DUPLICATE_ANNOTATION).
    #[error("You have annotated the event with this before")]
    DuplicateAnnotation,
    /// A user who is banned cannot be acted upon this way (M_FORBIDDEN / M_BAD_STATE).
    #[error("{0}")]
    BadState(String),
    /// A restricted room that this server cannot let the user into by itself (M_UNABLE_TO_AUTHORISE_JOIN).
    #[error("{0}")]
    UnableToAuthorizeJoin(String),
    /// An event of another server that cannot be judged, or makes no sense; it is not kept.
    #[error("{0}")]
    BadEvent(String),
    /// Auth events of an event cannot be had: it cannot be judged, and nothing that builds on it alone.
    #[error("{0}")]
    MissingAuth(String),
    /// The key that signed an event cannot be had: it cannot be checked.
    #[error("the key {} of {} cannot be had", _0.1, _0.0)]
    MissingKey(crate::KeyAt),
    /// Another server refused, or could not be asked.
    #[error(transparent)]
    Remote(#[from] crate::RemoteFailure),
    /// The room's policy server does not recommend the event, or could not be asked; its error is for the client to see.
    #[error(transparent)]
    Policy(crate::RemoteFailure),
    /// A restricted room into which another server may let the user (M_UNABLE_TO_GRANT_JOIN).
    #[error("{0}")]
    UnableToGrantJoin(String),
    /// A stored record cannot be read; a person must look.
    #[error("a stored {0} is damaged")]
    Damaged(&'static str),
    /// The storage layer failed or refused.
    #[error(transparent)]
    Storage(#[from] hearth_storage::Error),
    /// The event could not be built.
    #[error(transparent)]
    Event(#[from] hearth_events::Error),
}

impl Error {
    /// Whether the storage failed in a way that may pass. With all other errors work for all passes over the room that they
    /// are about.
    pub fn is_of_storage(&self) -> bool {
        matches!(self, Self::Storage(error) if error.may_pass())
    }
}
