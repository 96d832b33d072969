//! Effects of a batch on other entities, until they are applied there.

use crate::family::Profile;
use crate::schema::FamilyDoc;
use crate::{Position, ShardId};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "shard u16 · position u64 · index u16",
    value: "tag 2 · target kind u8 · operation u8 · target length varint · target · payload",
    writer: "the log, in the batch of the change; removed by the delivery",
    growth: "a row for each effect; removed when it is applied, so it is nearly empty",
    profile: Profile::Queue,
};

key! {
    /// `shard u16 · position u64 · index u16`
    pub struct OutboxKey {
        /// The shard that the effect comes from.
        shard: ShardId,
        /// The batch that it belongs to.
        position: Position,
        /// Its number in the batch.
        index: u16,
    }
}

key_test!(OutboxKey: OutboxKey { shard: ShardId(1), position: 1, index: 9 }, OutboxKey { shard: ShardId(1), position: 2, index: 0 }, OutboxKey { shard: ShardId(2), position: 0, index: 0 });
