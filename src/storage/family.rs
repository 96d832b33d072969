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

impl Profile {
    /// Every profile, by its number.
    pub const ALL: [Profile; 4] = [Profile::Point, Profile::Scan, Profile::Queue, Profile::Events];
}

macro_rules! families {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $module:ident;)*) => {
        /// A column family: one ordered map of the store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Family { $($(#[$doc])* $name,)* }

        impl Family {
            /// Every family.
            pub const ALL: &'static [Family] = &[$(Family::$name,)*];

            /// The family's name.
            pub fn name(self) -> &'static str {
                match self { $(Family::$name => $text,)* }
            }

            /// The byte that stands for the family on disk. It is never given to another one.
            pub fn code(self) -> u8 {
                match self { $(Family::$name => $code,)* }
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
    Meta = 1, "meta", meta;
    /// What happened in each shard, in order.
    Feed = 2, "feed", feed;
    /// How far each duty has read each shard's feed.
    Cursor = 3, "cursor", cursor;
    /// Effects on other entities that are not applied yet.
    Outbox = 4, "outbox", outbox;
    /// Entity names and their numbers.
    Entity = 5, "entity", entity;
    /// The parts of a room's record.
    Room = 6, "room", room;
    /// Events by their short id.
    RoomEvent = 7, "room_event", room_event;
    /// Event id to short id.
    RoomEventId = 8, "room_event_id", room_event_id;
    /// The room's order of events.
    RoomTimeline = 9, "room_timeline", room_timeline;
    /// State keys and their short ids.
    RoomStateKey = 10, "room_state_key", room_state_key;
    /// Nodes of the persistent state map.
    RoomStateNode = 11, "room_state_node", room_state_node;
    /// The state root at each position where the current state changed.
    RoomStateAt = 12, "room_state_at", room_state_at;
    /// The current state, flat.
    RoomState = 13, "room_state", room_state;
    /// The current state, flat, of rooms whose state was exchanged as a whole an odd number of times.
    RoomStateOther = 34, "room_state_other", room_state_other;
    /// Small ordered indexes of a room.
    RoomIndex = 14, "room_index", room_index;
    /// Client transaction ids.
    RoomTxn = 15, "room_txn", room_txn;
    /// Read receipts.
    RoomReceipt = 16, "room_receipt", room_receipt;
    /// The parts of a user's record.
    User = 17, "user", user;
    /// A user's devices.
    UserDevice = 18, "user_device", user_device;
    /// Access and refresh tokens.
    UserToken = 19, "user_token", user_token;
    /// Account data.
    UserData = 20, "user_data", user_data;
    /// A user's rooms.
    UserRoom = 21, "user_room", user_room;
    /// What changed for a user, by position.
    UserChange = 22, "user_change", user_change;
    /// Room aliases.
    Alias = 23, "alias", alias;
    /// Media records.
    Media = 24, "media", media;
    /// Stores of feed consumers over all entities.
    View = 25, "view", view;
    /// Registration tokens.
    TokenMisc = 26, "token_misc", token_misc;
    /// What devices published about themselves: identity keys, and the counts of what they left here.
    DeviceKey = 27, "device_key", device_key;
    /// One-time keys in the order in which they are handed out.
    OneTimeKey = 28, "one_time_key", one_time_key;
    /// One-time keys by their id.
    OneTimeKeyId = 29, "one_time_key_id", one_time_key_id;
    /// Messages to devices that were not fetched yet.
    ToDevice = 30, "to_device", to_device;
    /// What was sent to devices and received from where: so that nothing counts twice.
    ToDeviceMark = 31, "to_device_mark", to_device_mark;
    /// Backed-up room keys.
    KeyBackup = 32, "key_backup", key_backup;
    /// The published keys of other servers.
    ServerKey = 33, "server_key", server_key;
    /// What waits for other servers.
    Destination = 40, "destination", destination;
    /// Events of other servers that wait to be received into their room.
    RoomInbound = 41, "room_inbound", room_inbound;
    /// What is known of a remote server's users: their devices and keys, and the messages that came.
    RemoteUser = 42, "remote_user", remote_user;
    /// What pushers are still to be told.
    PushQueue = 50, "push_queue", push_queue;
    /// Events that users have asked to be sent later.
    DelayedEvent = 51, "delayed_event", delayed_event;
    /// Which threads users have subscribed to.
    ThreadSubscription = 52, "thread_subscription", thread_subscription;
    /// What connections of sliding sync have been sent.
    SyncConnection = 45, "sync_connection", sync_connection;
    /// Authentications that users have begun.
    UiaSession = 46, "uia_session", uia_session;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_numbered() {
        for (at, family) in Family::ALL.iter().enumerate() {
            assert_eq!(*family as usize, at);
            let mut before = Family::ALL[..at].iter();
            assert!(before.all(|other| other.name() != family.name() && other.code() != family.code()));
            assert!((1..0xFF).contains(&family.code()), "scans end at the next code");
        }
    }
}
