//! The keys of this crate's rows, and the numbers of its outbox operations.

use hearth_storage::schema::delayed_event::DelayedEventKey;
use hearth_storage::schema::sync_connection::SyncConnectionKey;
use hearth_storage::schema::thread_subscription::ThreadSubscriptionKey;
use hearth_storage::schema::token_misc::TokenMiscKey;
use hearth_storage::schema::user::UserKey;
use hearth_storage::schema::user_change::UserChangeKey;
use hearth_storage::schema::user_data::UserDataKey;
use hearth_storage::schema::user_device::UserDeviceKey;
use hearth_storage::schema::user_room::UserRoomKey;
use hearth_storage::schema::user_token::UserTokenKey;
use hearth_storage::schema::view::ViewKey;
use hearth_storage::{EntityKey, Slot};

use crate::token::Hash;

/// The operations that this crate applies to users and views when they come out of an outbox.
pub mod op {
    /// A membership of a local user changed in a room: a [`crate::MembershipUpdate`].
    pub const MEMBERSHIP: u8 = 1;
    /// A user's entry in the search view changed: a [`crate::SearchUpdate`].
    pub const USER_SEARCH: u8 = 2;
    /// A member's devices or keys changed, for a room: a [`crate::DeviceListUpdate`].
    pub const DEVICE_LIST: u8 = 3;
    /// Messages to a local user's devices: a [`crate::ToDeviceBatch`].
    pub const TO_DEVICE: u8 = 4;
    /// Messages to devices of users of another server: a [`crate::RemoteToDevice`].
    pub const REMOTE_TO_DEVICE: u8 = 5;
    /// A pusher came or went, for the view of all pushers.
    pub const PUSHER: u8 = 10;
}

/// The fields of the `user` family: the byte after the entity key.
pub(crate) mod field {
    /// The account record.
    pub const ACCOUNT: u8 = 1;
    /// The profile: one JSON object.
    pub const PROFILE: u8 = 2;
    /// A filter: then the filter's id.
    pub const FILTER: u8 = 3;
    /// Login tokens that may still be used: their hashes and expiries.
    pub const LOGIN_TOKENS: u8 = 4;
    /// Where the last change of a thing stands in `user_change`: then the change as encoded there.
    pub const CHANGED_AT: u8 = 5;
    /// The durable part of presence: the status message.
    pub const PRESENCE: u8 = 6;
    /// The number and time of the last change of the device list.
    pub const DEVICE_LIST: u8 = 7;
    /// The dehydrated device: which it is, and what it is brought to life with.
    pub const DEHYDRATED: u8 = 8;
    /// The shards of a token that was too long: then its name.
    pub const TOKEN_BASE: u8 = 9;
    /// OpenID tokens that may still be good: their hashes and ends.
    pub const OPENID_TOKENS: u8 = 10;
    /// The cross-signing keys: one record.
    pub const CROSS_SIGNING: u8 = 20;
    /// The user's signatures on a key: then the key's owner, 0, the key's or device's id.
    pub const SIGNATURES: u8 = 21;
    /// Which key backups there are.
    pub const KEY_BACKUPS: u8 = 22;
    /// A key backup: then its number, 20 digits.
    pub const KEY_BACKUP_VERSION: u8 = 23;
    /// A pusher: then its app id, 0, its pushkey.
    pub const PUSHER: u8 = 30;
}

/// A part of the user's record.
pub(crate) fn user(user: EntityKey, field: u8, key: &str) -> Vec<u8> {
    UserKey {
        user,
        field,
        key: key.into(),
    }
    .encode()
}

/// A device.
pub(crate) fn device(user: EntityKey, device: &str) -> Vec<u8> {
    UserDeviceKey {
        user,
        device: device.into(),
    }
    .encode()
}

/// A part of what a connection of sliding sync has been sent.
pub(crate) fn connection(user: EntityKey, device: &str, connection: &str, part: u8) -> Vec<u8> {
    SyncConnectionKey {
        user,
        device: device.into(),
        connection: connection.into(),
        part,
    }
    .encode()
}

/// The prefix of all connections of a device.
pub(crate) fn connections_of(user: EntityKey, device: &str) -> Vec<u8> {
    let mut key = connection(user, device, "", 0);
    // The end of the connection's id, and the part.
    key.truncate(key.len() - 2);
    key
}

/// A token.
pub(crate) fn token(slot: Slot, hash: &Hash) -> Vec<u8> {
    UserTokenKey { slot, hash: hash.0 }.encode()
}

/// An account data event of a room, or a global one if the room is empty.
pub(crate) fn data(user: EntityKey, room: &str, kind: &str) -> Vec<u8> {
    UserDataKey {
        user,
        room: room.into(),
        kind: kind.into(),
    }
    .encode()
}

/// The prefix of all account data of one room, or of the global data.
pub(crate) fn data_room(user: EntityKey, room: &str) -> Vec<u8> {
    data(user, room, "")
}

/// What a user said of a thread; with an empty root the prefix of all of the room's.
pub(crate) fn thread(user: EntityKey, room: &str, root: &str) -> Vec<u8> {
    ThreadSubscriptionKey {
        user,
        room: room.into(),
        root: root.into(),
    }
    .encode()
}

/// A delayed event.
pub(crate) fn delayed_event(user: EntityKey, id: &str) -> Vec<u8> {
    DelayedEventKey { user, id: id.into() }.encode()
}

/// A room entry.
pub(crate) fn room(user: EntityKey, room_id: &str) -> Vec<u8> {
    UserRoomKey {
        user,
        room: room_id.into(),
    }
    .encode()
}

/// A change.
pub(crate) fn change(user: EntityKey, position: u64, index: u16) -> Vec<u8> {
    UserChangeKey {
        user,
        position,
        index,
    }
    .encode()
}

/// A registration token.
pub(crate) fn registration_token(slot: Slot, token: &str) -> Vec<u8> {
    TokenMiscKey {
        slot,
        token: token.into(),
    }
    .encode()
}

/// A row of a view.
pub(crate) fn view(view: &str, key: &[u8]) -> Vec<u8> {
    ViewKey {
        view: view.into(),
        key: key.into(),
    }
    .encode()
}
