//! The one error type of this crate.

/// What can go wrong between an operation and the disk.
///
/// It is cheap to clone because one failed group commit is reported to every committer in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The log stopped, by a failed write or by a shutdown; nothing more can be committed.
    #[error("the log has stopped")]
    Stopped,
    /// The shard is not open in this process.
    #[error("the shard is not open here")]
    NotOpen,
    /// The free disk space is below the reserve.
    #[error("the disk is almost full; writes are refused")]
    DiskFull,
    /// The name is taken, or being taken by an operation that has not committed yet.
    #[error("the name is already in use")]
    Exists,
    /// Another process has the data open.
    #[error("another process has the data open: {0}")]
    InUse(String),
    /// The engine reported a failure.
    #[error("storage engine: {0}")]
    Engine(String),
    /// Stored bytes are not what this version writes.
    #[error("a stored {0} could not be decoded")]
    Corrupt(&'static str),
    /// The data directory was written by another version of Hearth.
    #[error("{0}")]
    Schema(String),
    /// A value could not be encoded.
    #[error("a value could not be encoded: {0}")]
    Encode(String),
    /// Applying a change to another entity failed for a reason that is not storage; it is tried again for a time.
    #[error("{0}")]
    Apply(String),
}

impl Error {
    /// Whether the same may succeed later. What cannot be read from what is stored stays so: work for all passes over the one
    /// room or user that it is about.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Corrupt(_) | Self::Schema(_) | Self::Encode(_))
    }
}
