//! How far each duty has read each shard's feed.

use crate::ShardId;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Text};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "duty text · shard u16",
    value: "tag 2 · position u64",
    writer: "the duty itself, after its work is durable",
    growth: "a row for each duty and shard",
    profile: Profile::Point,
};

key! {
    /// `duty text · shard u16`
    pub struct CursorKey<'a> {
        /// The name of the duty.
        duty: Text<'a>,
        /// The shard whose feed it reads.
        shard: ShardId,
    }
}

key_test!(CursorKey: CursorKey { duty: "push".into(), shard: ShardId(1) }, CursorKey { duty: "push".into(), shard: ShardId(256) }, CursorKey { duty: "search".into(), shard: ShardId(0) });
