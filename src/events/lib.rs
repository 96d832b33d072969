//! Events and the rules that decide about them: formats, canonical JSON, hashes, signatures, redaction, authorization. Pure: no I/O.
//!
//! **Invariant:** nothing in this crate reads a clock, a random source, a file or a socket; the same input gives the same answer on every
//! server. **Invariant:** no function panics on bytes that came from outside.
//!
//! Where to start: [`rules()`] gives what a room version demands, [`build`] makes an event of ours, [`Pdu::parse`] reads one of somebody
//! else's, [`authorize`] decides whether it may be in the room, [`resolve()`] what the room's state is where its history forked.

mod acl;
mod auth;
mod auth_events;
mod auth_member;
mod auth_power;
mod auth_state;
pub mod canonical;
mod canonical_check;
mod canonical_read;
mod draft;
mod error;
mod json;
mod keys;
mod layout;
pub mod limits;
pub mod notification;
mod pdu;
mod pdu_read;
mod power;
pub mod push;
mod redact;
mod resolve;
mod rules;
mod state;
mod state_key;
mod verify;

#[cfg(test)]
mod oracle;

pub use acl::ServerAcl;
pub use auth::{AuthInput, Denied, StateView, authorize, may_redact};
pub use auth_events::{AuthEvent, auth_types, check_auth_events};
pub use auth_state::AuthState;
pub use draft::{Draft, Unsigned, build, build_with_references};
pub use error::Error;
pub use json::{has_endless_number, nesting};
pub use keys::{
    KeyPair, base64_decode, base64_encode, sign_json, signing_bytes, verify_bytes, verify_json,
    verify_json_of,
};
pub use layout::{Layout, Span};
pub use pdu::Pdu;
pub use power::{Power, PowerField, PowerLevels, PowerView};
pub use redact::redact;
pub use resolve::{
    Conflict, EventNo, KeyNo, ResolveError, ResolveEvent, ResolveSource, Resolved, STEPS_MAX, SourceError,
    resolve,
};
pub use rules::{Rules, rules};
pub use state::{
    AllowRule, CreateInfo, JoinRule, JoinRuleInfo, MemberInfo, Membership, ThirdPartyInviteInfo,
};
pub use state_key::check_state_key;
pub use verify::{
    required_servers, signature_keys, verify_content_hash, verify_event_signatures, verify_signature,
};
