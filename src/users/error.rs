//! What can go wrong in an operation on a user. The API maps each variant to one Matrix error.

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A refusal or a failure of an operation on a user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is taken, or was taken once: a deactivated name is never given again.
    #[error("This user name is taken")]
    UserInUse,
    /// The name breaks the grammar of user ids.
    #[error("{0}")]
    InvalidUsername(&'static str),
    /// There is no such thing; the text says what was looked for.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The token is unknown. `soft_logout` says that the session still exists and may be refreshed.
    #[error("Unknown or expired access token")]
    UnknownToken {
        /// Whether the client may keep its data and log in again to the same device.
        soft_logout: bool,
    },
    /// The password or the user name was wrong; which of them is not told.
    #[error("Wrong user name or password")]
    WrongPassword,
    /// The account was deactivated.
    #[error("This account has been deactivated")]
    Deactivated,
    /// The account was locked by an administrator (M_USER_LOCKED).
    #[error("This account has been locked")]
    Locked,
    /// The password does not meet the rules.
    #[error("{0}")]
    WeakPassword(&'static str),
    /// The registration token does not exist, is used up, or has expired.
    #[error("The registration token is not valid")]
    InvalidRegistrationToken,
    /// The operation is not allowed for a reason of the user's own state.
    #[error("{0}")]
    Forbidden(&'static str),
    /// A parameter is malformed.
    #[error("{0}")]
    InvalidParam(&'static str),
    /// The body lacks something, or something in it has the wrong type (M_BAD_JSON).
    #[error("{0}")]
    BadJson(&'static str),
    /// The profile would exceed its limit (M_PROFILE_TOO_LARGE).
    #[error("The profile would be larger than 64 KiB")]
    ProfileTooLarge,
    /// The key of a profile field exceeds its limit (M_KEY_TOO_LARGE).
    #[error("The profile field's name is longer than 255 bytes")]
    KeyTooLarge,
    /// The content exceeds its limit (M_TOO_LARGE).
    #[error("{0}")]
    TooLarge(&'static str),
    /// One of this user's limits on stored things is reached (M_USER_LIMIT_EXCEEDED).
    #[error("{0}")]
    TooMany(&'static str),
    /// A user-interactive request was repeated with another method, path or body.
    #[error("The request changed during its authentication")]
    RequestChanged,
    /// A parameter that is needed is missing (M_MISSING_PARAM).
    #[error("{0}")]
    MissingParam(&'static str),
    /// A signature is missing or does not hold (M_INVALID_SIGNATURE); the text says which and why.
    #[error("{0}")]
    InvalidSignature(String),
    /// The key backup exists but is not the current one (M_WRONG_ROOM_KEYS_VERSION); here is which one is.
    #[error("The backup version is not the current one")]
    WrongBackupVersion(String),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] hearth_storage::Error),
    /// Something that cannot happen by input did; the text is for the log, not for the client.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Whether the storage failed in a way that may pass. With all other errors work for all passes over the user whom they
    /// are about.
    pub fn is_of_storage(&self) -> bool {
        matches!(self, Self::Storage(error) if error.may_pass())
    }
}
