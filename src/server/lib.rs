//! The `hearth` binary as a library, so that tests start whole servers inside their process.
//!
//! **Invariant:** only this crate wires. It reads the configuration, builds the other crates' parts
//! out of it ([`wiring`]), opens listeners ([`listener`]) and decides when the process ends.
//!
//! ```text
//! main.rs → cli → Server::build → wiring → routers
//!                 Server::run   → listener (TCP, TLS) → request (id, log) → hearth_api
//!                               → admin_socket → wiring::Accounts, as `hearth user` does without a server
//! ```

pub mod admin_socket;
pub mod cli;
pub mod dns;
pub mod error;
mod guard;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod outbound;
mod outbound_server;
pub mod pages;
pub mod remote_media;
mod request;
mod samples;
pub mod server;
pub mod tls;
mod unread_body;
pub mod wiring;

pub use error::Error;
pub use server::{Bound, Server};
pub use wiring::Deps;
