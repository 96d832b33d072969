//! The column families. What each holds is written in [`crate::schema`].

use crate::schema::{self, FamilyDoc};

/// How a family is used; the engine tunes its files by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Single keys are looked up, often absent ones: bloom filters over whole keys.
    Point,
    /// Ranges are scanned in order; the rows are small.
    Scan,
    /// Rows are written at the end and removed from the front: nothing worth compressing well.
    Queue,
    /// Event bodies: large, read by key, kept for ever, compressed hard.
    Events,
}

macro_rules! families {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $module:ident;)*) => {
        /// A column family: one ordered map of the store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Family { $($(#[$doc])* $name,)* }

        impl Family {
            /// Every family.
            pub const ALL: &'static [Family] = &[$(Family::$name,)*];

            /// The name under which the family is stored.
            pub fn name(self) -> &'static str {
                match self { $(Family::$name => $text,)* }
            }

            /// What the family holds.
            pub fn doc(self) -> &'static FamilyDoc {
                match self { $(Family::$name => &schema::$module::DOC,)* }
            }
        }
    };
}

families! {
    /// The data directory itself: schema version, shard map, shard heads.
    Meta = "meta", meta;
    /// What happened in each shard, in order.
    Feed = "feed", feed;
    /// How far each duty has read each shard's feed.
    Cursor = "cursor", cursor;
    /// Effects on other entities that are not applied yet.
    Outbox = "outbox", outbox;
    /// Entity names and their numbers.
    Entity = "entity", entity;
    /// The parts of a room's record.
    Room = "room", room;
    /// Events by their short id.
    RoomEvent = "room_event", room_event;
    /// Event id to short id.
    RoomEventId = "room_event_id", room_event_id;
    /// The room's order of events.
    RoomTimeline = "room_timeline", room_timeline;
    /// State keys and their short ids.
    RoomStateKey = "room_state_key", room_state_key;
    /// Nodes of the persistent state map.
    RoomStateNode = "room_state_node", room_state_node;
    /// The state root at each position where the current state changed.
    RoomStateAt = "room_state_at", room_state_at;
    /// The current state, flat.
    RoomState = "room_state", room_state;
    /// Small ordered indexes of a room.
    RoomIndex = "room_index", room_index;
    /// Client transaction ids.
    RoomTxn = "room_txn", room_txn;
    /// Read receipts.
    RoomReceipt = "room_receipt", room_receipt;
    /// The parts of a user's record.
    User = "user", user;
    /// A user's devices.
    UserDevice = "user_device", user_device;
    /// Access and refresh tokens.
    UserToken = "user_token", user_token;
    /// Account data.
    UserData = "user_data", user_data;
    /// A user's rooms.
    UserRoom = "user_room", user_room;
    /// What changed for a user, by position.
    UserChange = "user_change", user_change;
    /// Room aliases.
    Alias = "alias", alias;
    /// Media records.
    Media = "media", media;
    /// Stores of feed consumers over all entities.
    View = "view", view;
    /// Registration tokens.
    TokenMisc = "token_misc", token_misc;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_numbered() {
        for (at, family) in Family::ALL.iter().enumerate() {
            assert_eq!(*family as usize, at);
            assert!(Family::ALL[..at].iter().all(|other| other.name() != family.name()));
        }
    }
}
