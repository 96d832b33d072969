//! What happened in each shard, in order: the source of every feed consumer.

use crate::family::Profile;
use crate::schema::FamilyDoc;
use crate::{Position, ShardId};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "shard u16 · position u64",
    value: "tag 2, then for each item: slot u16 · number varint · kind u8 · reference varint",
    writer: "the log, in the batch of the change",
    growth: "a row a committed batch that has items, about 20 bytes; trimmed behind the slowest duty",
    profile: Profile::Queue,
};

key! {
    /// `shard u16 · position u64`
    pub struct FeedKey {
        /// The shard whose feed it is.
        shard: ShardId,
        /// The batch that the items belong to.
        position: Position,
    }
}

key_test!(FeedKey: FeedKey { shard: ShardId(1), position: 1 }, FeedKey { shard: ShardId(1), position: 256 }, FeedKey { shard: ShardId(2), position: 0 });
