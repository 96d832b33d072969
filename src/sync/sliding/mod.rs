//! Sliding sync (MSC4186): the news of a user by windows over the list of rooms.
//!
//! A client names lists (a filter and ranges of places) and single rooms; an answer holds the rooms among
//! them that changed since they were last sent on this connection. [`SyncEngine::sliding_sync`] computes an
//! [`Answer`] as plain data, `render` writes it for one of two wires. `docs/sync.md` tells how it works.

mod connection;
mod engine;
mod extensions;
mod facts;
mod filter;
mod left;
mod list;
mod lists;
mod order;
mod registry;
mod render;
mod request;
mod room;
mod state;
mod stored;

pub(crate) use order::{Listed, RoomOrder, direct_rooms};
pub(crate) use registry::Connections;

pub use engine::Answer;
pub use extensions::ExtensionNews;
pub use facts::Hero;
pub use render::{Wire, render};
pub use request::{
    Extensions, List, ListFilter, Request, RequiredState, RoomConfig, Scope, StatePattern, StateRule,
    Threads, ToDevice,
};
pub use room::{Body, FullRoom, Gone, RoomNews};

/// A number for a text: FNV-1a. It is stored, so it must never be another.
fn number_of(text: &str) -> u64 {
    let mut number: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        number = (number ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    number
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_stay_what_they_are() {
        assert_eq!(super::number_of(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(super::number_of("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(super::number_of("foobar"), 0x8594_4171_f739_67e8);
    }
}
