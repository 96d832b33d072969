//! The sync engine: notifier, token, what may this user see, and renderings.
//!
//! [`SyncEngine::sync`] computes a [`SyncView`], the news of a user since a [`SyncToken`], as plain data;
//! [`v3`] writes it out as the `/sync` of the client-server API. Batch tokens of all endpoints are made
//! and read by [`BatchToken`] alone. [`sliding`] shows the same news by windows over the room list.

mod account_data;
mod devices;
mod engine;
#[cfg(test)]
mod engine_tests;
mod error;
mod filter;
mod index;
mod lazy;
pub mod legacy;
mod look;
mod notifier;
mod own;
mod peek;
mod positions;
mod presence;
mod presence_notes;
mod room;
mod room_state;
pub mod sliding;
mod threads;
mod token;
mod token_base;
pub mod v3;
mod view;

pub use engine::{StateSide, SyncEngine, SyncRequest};
pub use error::Error;
pub use filter::{EventFilter, EventFormat, Fields, Filter, Patterns, RoomFilter, cut};
pub use threads::ThreadsPage;
pub use token::{BatchToken, SlidingPos, SyncToken, ThreadsToken, ToDeviceToken};
pub use view::{
    DataEvent, DeviceLists, JoinedRoom, LeftRoom, StrippedRoom, Summary, SyncView, Timeline, ToDeviceEvent,
    Unread,
};
