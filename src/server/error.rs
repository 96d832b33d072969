//! Why the server cannot start or go on. The texts are for the operator.

use hearth_core::config::ConfigError;

/// An error that ends the program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used:\n{0}")]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address as configured.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// A certificate or key cannot be used.
    #[error("cannot use the TLS certificate {file}: {reason}")]
    Certificate {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The data directory cannot be used.
    #[error("cannot use the data directory {folder}: {reason}")]
    Data {
        /// The folder.
        folder: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the data directory open: a server that runs, starts or stops, or a command.
    #[error("cannot use the data directory {folder}: {reason} (is a server running on it?)")]
    InUse {
        /// The folder.
        folder: String,
        /// What the system said.
        reason: String,
    },
    /// A part of the server refused to start.
    #[error("{part} cannot start: {reason}")]
    Start {
        /// Which part.
        part: &'static str,
        /// Why.
        reason: String,
    },
    /// The log of operations failed; going on would mean to answer what is not on disk.
    #[error("the data cannot be written any more, the server stops: {0}")]
    Fatal(String),
    /// A command of `hearth user` was refused.
    #[error("{0}")]
    Command(String),
}
