//! Application services: their registration files, who owns which namespace, and the ping that
//! proves the connection.
//!
//! Transactions to application services are a consumer of the feed and come with a later issue;
//! what is here is what the server's own surface needs: authentication by `as_token`, exclusive
//! namespaces in both directions, and `ping`.

mod file;
mod namespace;
mod ping;
mod registrations;

pub use file::{NamespaceFile, NamespacesFile, RegistrationFile};
pub use namespace::{Namespace, Namespaces};
pub use ping::ping;
pub use registrations::{Error, Registration, Registrations};
