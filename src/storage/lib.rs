//! Storage engines, the schema of every column family, the shard log and its feeds.
//!
//! Everything above this crate changes stored data through [`Log`]: reserve a [`Ticket`], fill a
//! [`Record`], submit it, and wait for the commit. Reads go straight to the [`Engine`].
//!
//! **Invariant:** this is the only crate that names RocksDB.

pub mod batch;
pub mod engine;
pub mod entity;
pub mod error;
pub mod family;
pub mod feed;
pub mod key;
pub mod log;
pub mod memory;
pub mod record;
pub mod rocks;
pub mod schema;
pub mod slot;

#[cfg(test)]
mod conformance;

pub use batch::{Batch, Op};
pub use engine::{Engine, Reader, prefix_end};
pub use entity::{entity, name_of, remove_entity};
pub use error::Error;
pub use family::Family;
pub use feed::{Feed, Start};
pub use log::{
    Commit, FeedItem, FeedKind, Log, LogOptions, OutboxRow, Published, Record, ShardInfo, Ticket, WriterMode,
};
pub use memory::MemoryEngine;
pub use rocks::{RocksEngine, RocksOptions};
pub use slot::{EntityKey, EntityKind, Position, ShardId, Slot, slot_of};
