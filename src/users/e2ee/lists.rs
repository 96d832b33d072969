//! Changes of a user's device list: a stream without gaps, and the notice to every room that the user is in.

use hearth_storage::{EntityKey, EntityKind, Family, OutboxRow, record};
use ruma::{OwnedUserId, RoomId, UserId};
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

/// The number of the last change, and when it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stream {
    pub stream: u64,
    pub ts: u64,
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
        let value = self
            .users
            .log
            .engine()
            .get(Family::User, &keys::user(self.key, field::DEVICE_LIST, ""))?;
        let stream: Option<Stream> = value.as_deref().map(record::decode).transpose()?;
        Ok(stream.unwrap_or_default().stream)
    }
}

/// Notes that the user's devices or keys changed: in the user's own stream, and to each joined room.
pub(crate) fn changed(tx: &mut Tx<'_>, user: &UserId, key: EntityKey, now_ms: u64) -> Result<()> {
    let mut stream = stream(tx, key)?;
    stream.stream += 1;
    stream.ts = now_ms;
    tx.put(
        Family::User,
        keys::user(key, field::DEVICE_LIST, ""),
        record::encode(&stream),
    );
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

/// The user joined a room: tells it of a change that was made so shortly before that it may not know of it.
pub(crate) fn joined(
    tx: &mut Tx<'_>,
    user: &UserId,
    key: EntityKey,
    room: &RoomId,
    join_ts: u64,
) -> Result<()> {
    let stream = stream(tx, key)?;
    if stream.stream > 0 && stream.ts.saturating_add(BEFORE_JOIN_MS) >= join_ts {
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
