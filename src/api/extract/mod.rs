//! Typed input for handlers. Whatever does not fit is refused here with a Matrix error, so that a
//! handler sees only values that make sense.

mod address;
mod auth;
mod guest;
mod json;
mod params;

pub use address::Address;
pub use auth::{Anybody, AppserviceToken, Auth, AuthEvenIfLocked, OptionalAuth};
pub(crate) use guest::refusal as guest_refusal;
pub use json::{Json, OptionalJson, OptionalRawJson, RawJson, body_bytes, or_default, read_object};
pub use params::{Path, Query, token_unless_empty};
