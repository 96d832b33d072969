//! The keys of the rows that are kept for encryption.

use hearth_storage::EntityKey;
use hearth_storage::schema::device_key::DeviceKeyKey;
use hearth_storage::schema::one_time_key::OneTimeKeyKey;
use hearth_storage::schema::one_time_key_id::OneTimeKeyIdKey;
use hearth_storage::schema::to_device::ToDeviceKey;
use hearth_storage::schema::to_device_mark::ToDeviceMarkKey;

/// Kinds of rows of `device_key`.
pub(super) mod kind {
    pub const IDENTITY: u8 = 1;
    pub const ONE_TIME: u8 = 2;
    pub const WAITING: u8 = 3;
}

/// Kinds of rows of `to_device_mark`.
pub(super) mod mark {
    pub const SENT: u8 = 1;
    pub const RECEIVED: u8 = 2;
    pub const PRUNED: u8 = 3;
}

pub(super) fn device_key(user: EntityKey, kind: u8, device: &str) -> Vec<u8> {
    DeviceKeyKey {
        user,
        kind,
        device: device.into(),
    }
    .encode()
}

pub(super) fn one_time_key(user: EntityKey, device: &str, algorithm: &str, order: u64) -> Vec<u8> {
    OneTimeKeyKey {
        user,
        device: device.into(),
        algorithm: algorithm.into(),
        order,
    }
    .encode()
}

/// The prefix of a device's keys of one algorithm: their keys without the order at the end.
pub(super) fn one_time_keys(user: EntityKey, device: &str, algorithm: &str) -> Vec<u8> {
    let mut key = one_time_key(user, device, algorithm, 0);
    key.truncate(key.len() - 8);
    key
}

pub(super) fn one_time_key_id(user: EntityKey, device: &str, key_id: &str) -> Vec<u8> {
    OneTimeKeyIdKey {
        user,
        device: device.into(),
        key_id: key_id.into(),
    }
    .encode()
}

/// The prefix of everything whose key continues after a device's id.
pub(super) fn of_device(user: EntityKey, device: &str) -> Vec<u8> {
    one_time_key_id(user, device, "")
}

pub(super) fn to_device(user: EntityKey, device: &str, position: u64, index: u16) -> Vec<u8> {
    ToDeviceKey {
        user,
        device: device.into(),
        position,
        index,
    }
    .encode()
}

pub(super) fn sent(user: EntityKey, device: &str, txn: &[u8]) -> Vec<u8> {
    let mark = [device.as_bytes(), &[0], txn].concat();
    ToDeviceMarkKey {
        user,
        kind: mark::SENT,
        mark: mark.as_slice().into(),
    }
    .encode()
}

/// When the transactions of a device were last looked through.
pub(super) fn pruned(user: EntityKey, device: &str) -> Vec<u8> {
    ToDeviceMarkKey {
        user,
        kind: mark::PRUNED,
        mark: device.as_bytes().into(),
    }
    .encode()
}

pub(super) fn received(user: EntityKey, shard: u16) -> Vec<u8> {
    let mark = shard.to_be_bytes();
    ToDeviceMarkKey {
        user,
        kind: mark::RECEIVED,
        mark: mark.as_slice().into(),
    }
    .encode()
}
