//! What every other crate of Hearth stands on: configuration, errors as clients see them, the
//! clock, the random source, outbound HTTP, supervised tasks, limits and metric names.
//!
//! Nothing here knows Matrix events, storage or HTTP serving. Time, randomness and outbound
//! requests are traits, so that tests and simulations replace them.

pub mod clock;
pub mod config;
pub mod error;
pub mod html;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod places;
pub mod random;
pub mod tasks;

pub use clock::{Clock, SharedClock};
pub use config::Config;
pub use error::{MatrixError, errcode};
pub use random::{Random, SharedRandom};
pub use tasks::{Pool, Shutdown};

/// Hearth's version, as `hearth --version` and the start page show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
