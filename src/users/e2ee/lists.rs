//! Changes of a user's device list: a stream without gaps, and the notice to every room that the user is in.

use std::collections::VecDeque;

use hearth_storage::{EntityKey, EntityKind, Family, OutboxRow, record};
use ruma::{OwnedDeviceId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::error::Result;
use crate::keys::{self, field, op};
use crate::room_list::{Membership, RoomEntry};
use crate::user::User;
use crate::write::Tx;

/// How long before a join a change may have been made and still be told to the room again: such a change may have
/// looked for the user's rooms before the join was among them.
const BEFORE_JOIN_MS: u64 = 60_000;

/// What a room is told when a member's devices or keys change: the payload of [`op::DEVICE_LIST`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceListUpdate {
    /// The user.
    pub user_id: OwnedUserId,
}

/// So many of the newest changes are known one by one; who knows less of the list fetches it whole.
const RECENT_MAX_CHANGES: usize = 64;

/// The number of the last change, when rooms were last told of one, and what the newest ones were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stream {
    pub stream: u64,
    pub ts: u64,
    /// Oldest first; without a device it was the cross-signing keys that changed.
    #[serde(default)]
    recent: VecDeque<(u64, Option<OwnedDeviceId>)>,
}

/// The changes of a device list, as other servers are told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListChanges {
    /// The number of the newest change.
    pub stream: u64,
    /// The devices that changed, each with the number of its newest change, in that order. Where older changes than
    /// are known one by one are missing, just the newest.
    pub devices: Vec<(u64, OwnedDeviceId)>,
    /// Whether the cross-signing keys changed.
    pub keys: bool,
    /// Whether these are all changes.
    pub is_complete: bool,
}

impl Stream {
    fn changes_since(&self, since: u64) -> ListChanges {
        let newer = || self.recent.iter().filter(|(number, _)| *number > since);
        let mut devices: Vec<(u64, OwnedDeviceId)> = Vec::new();
        for (number, device) in newer() {
            if let Some(device) = device {
                devices.retain(|(_, other)| other != device);
                devices.push((*number, device.clone()));
            }
        }
        let oldest = self.recent.front().map_or(u64::MAX, |(number, _)| *number);
        ListChanges {
            stream: self.stream,
            devices,
            keys: newer().any(|(_, device)| device.is_none()),
            is_complete: since >= self.stream || oldest <= since.saturating_add(1),
        }
    }
}

impl DeviceListUpdate {
    fn row(&self, room: &RoomId) -> OutboxRow {
        OutboxRow {
            target_kind: EntityKind::Room,
            target: room.to_string(),
            op: op::DEVICE_LIST,
            payload: record::encode(self),
        }
    }
}

impl User {
    /// The number of the last change of this user's device list; each change has the next one.
    pub fn device_list_stream(&self) -> Result<u64> {
        Ok(self.stored_stream()?.stream)
    }

    /// Whether the list never had keys in it, and nothing has happened to it since its first device was made.
    pub fn device_list_is_new(&self) -> Result<bool> {
        let stream = self.stored_stream()?;
        Ok(stream.ts == 0 && stream.stream <= 1)
    }

    /// What changed in this user's device list after the change with the number `since`.
    pub fn device_list_changes(&self, since: u64) -> Result<ListChanges> {
        Ok(self.stored_stream()?.changes_since(since))
    }

    fn stored_stream(&self) -> Result<Stream> {
        let row = keys::user(self.key, field::DEVICE_LIST, "");
        let value = self.users.log.engine().get(Family::User, &row)?;
        let stream: Option<Stream> = value.as_deref().map(record::decode).transpose()?;
        Ok(stream.unwrap_or_default())
    }
}

/// Notes that the user's devices or keys changed: in the user's own stream, and to each joined room. `changed` names
/// the devices, each of which is a change; `None` is the cross-signing keys.
pub(crate) fn changed(
    tx: &mut Tx<'_>,
    user: &UserId,
    key: EntityKey,
    now_ms: u64,
    changed: &[Option<OwnedDeviceId>],
) -> Result<()> {
    count(tx, key, Some(now_ms), changed)?;
    tx.changed(Change::DeviceList)?;
    let update = DeviceListUpdate {
        user_id: user.to_owned(),
    };
    for (_, value) in tx.scan(Family::UserRoom, &key.to_bytes())? {
        let entry: RoomEntry = record::decode(&value)?;
        if entry.membership == Membership::Join {
            tx.outbox(update.row(&entry.room_id));
        }
    }
    Ok(())
}

/// Notes changes of devices that have no keys: other servers are told of every device, the clients of this server only
/// of what they can ask for, which is keys.
pub(crate) fn changed_without_keys(
    tx: &mut Tx<'_>,
    key: EntityKey,
    devices: &[Option<OwnedDeviceId>],
) -> Result<()> {
    count(tx, key, None, devices)?;
    tx.changed(Change::Devices)
}

/// Gives each change its number. `told_ms` is when rooms are told of them.
fn count(
    tx: &mut Tx<'_>,
    key: EntityKey,
    told_ms: Option<u64>,
    changed: &[Option<OwnedDeviceId>],
) -> Result<()> {
    let mut stream = stream(tx, key)?;
    for change in changed {
        stream.stream += 1;
        stream.recent.push_back((stream.stream, change.clone()));
    }
    while stream.recent.len() > RECENT_MAX_CHANGES {
        stream.recent.pop_front();
    }
    stream.ts = told_ms.unwrap_or(stream.ts);
    tx.put(
        Family::User,
        keys::user(key, field::DEVICE_LIST, ""),
        record::encode(&stream),
    );
    Ok(())
}

/// The user joined a room: tells it of a change that was made so shortly before that it may not know of it.
pub(crate) fn joined(
    tx: &mut Tx<'_>,
    user: &UserId,
    key: EntityKey,
    room: &RoomId,
    join_ts: u64,
) -> Result<()> {
    let stream = stream(tx, key)?;
    if stream.ts > 0 && stream.ts.saturating_add(BEFORE_JOIN_MS) >= join_ts {
        tx.outbox(
            DeviceListUpdate {
                user_id: user.to_owned(),
            }
            .row(room),
        );
    }
    Ok(())
}

fn stream(tx: &Tx<'_>, key: EntityKey) -> Result<Stream> {
    let value = tx.get(Family::User, &keys::user(key, field::DEVICE_LIST, ""))?;
    Ok(value
        .as_deref()
        .map(record::decode)
        .transpose()?
        .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_once_for_each_device() {
        let device = |name: &str| Some(OwnedDeviceId::from(name));
        let stream = Stream {
            stream: 5,
            ts: 0,
            recent: [(2, device("A")), (3, None), (4, device("B")), (5, device("A"))].into(),
        };
        let check = |since, devices: &[(u64, &str)], keys, is_complete| {
            let devices = devices.iter().map(|(at, name)| (*at, (*name).into()));
            let expected = ListChanges {
                stream: 5,
                devices: devices.collect(),
                keys,
                is_complete,
            };
            assert_eq!(stream.changes_since(since), expected, "since {since}");
        };
        check(5, &[], false, true);
        check(4, &[(5, "A")], false, true);
        check(1, &[(4, "B"), (5, "A")], true, true);
        check(0, &[(4, "B"), (5, "A")], true, false);
    }
}
