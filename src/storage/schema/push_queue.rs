//! What pushers are still to be told.

use crate::family::Profile;
use crate::schema::{FamilyDoc, Text};
use crate::{EntityKey, Position, ShardId};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · app id, 0 · pushkey, 0 · position u64 · shard u16 · index u16",
    value: "tag 1 · JSON (user, event and actions, time)",
    writer: "the push duty, with its cursor; removed by the sender",
    growth: "a row a notification of a pusher until it is sent; of those that gather, one a room is kept, and none of a day ago",
    profile: Profile::Queue,
};

key! {
    /// `user entity · app id, 0 · pushkey, 0 · position u64 · shard u16 · index u16`
    pub struct PushQueueKey<'a> {
        /// The user.
        user: EntityKey,
        /// The pusher's application.
        app_id: Text<'a>,
        /// Its pushkey.
        pushkey: Text<'a>,
        /// The position of the feed that the notification comes from.
        position: Position,
        /// The feed's shard.
        shard: ShardId,
        /// Which of the position's items.
        index: u16,
    }
}

key_test!(PushQueueKey:
    PushQueueKey { user: entity(1, 1), app_id: "a".into(), pushkey: "k".into(), position: 2, shard: ShardId(9), index: 1 },
    PushQueueKey { user: entity(1, 1), app_id: "a".into(), pushkey: "k".into(), position: 3, shard: ShardId(1), index: 0 },
    PushQueueKey { user: entity(1, 1), app_id: "b".into(), pushkey: "k".into(), position: 0, shard: ShardId(1), index: 0 },);
