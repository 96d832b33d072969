//! The data directory itself.

use crate::ShardId;
use crate::family::Profile;
use crate::key::{KeyReader, KeyWriter};
use crate::schema::FamilyDoc;

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "name, or 00 · shard u16 for the head of a shard",
    value: "schema: tag 1 · JSON version; shards: tag 1 · JSON ranges; head: tag 2 · last used position u64; other names: by their owner",
    writer: "the log; `server` for what belongs to the server as a whole (signing key)",
    growth: "a row a shard and a few more",
    profile: Profile::Point,
};

/// `name`, or `00 · shard u16`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaKey<'a> {
    /// The last used position of a shard.
    Head(ShardId),
    /// Everything else, by name.
    Named(&'a str),
}

impl<'a> MetaKey<'a> {
    /// The schema version of the data directory.
    pub const SCHEMA: MetaKey<'static> = MetaKey::Named("schema");
    /// The shard map.
    pub const SHARDS: MetaKey<'static> = MetaKey::Named("shards");

    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            MetaKey::Head(shard) => KeyWriter::new(3).u8(0).u16(shard.0).done(),
            MetaKey::Named(name) => name.as_bytes().to_vec(),
        }
    }

    /// Reads the stored bytes.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        if bytes.first() != Some(&0) {
            return KeyReader::new(bytes).rest().map(MetaKey::Named);
        }
        let mut key = KeyReader::new(&bytes[1..]);
        let shard = ShardId(key.u16()?);
        key.end()?;
        Some(MetaKey::Head(shard))
    }
}

key_test!(MetaKey: MetaKey::Head(ShardId(1)), MetaKey::Head(ShardId(256)), MetaKey::SCHEMA, MetaKey::SHARDS);
