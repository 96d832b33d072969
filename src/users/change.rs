//! The change stream of a user: position → what changed. A thing stands in it once, at its last change.

use hearth_storage::{EntityKey, Family, Position, Reader};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};

use crate::error::Result;
use crate::keys::{self, field};
use crate::user::User;
use crate::write::Tx;

/// The tag of a change, and of the mark where a thing's last change stands (then position u64, index u16).
const TAG: u8 = 2;

/// Something of a user that changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    /// The user's entry for a room: membership, invitation, forgotten.
    Room(OwnedRoomId),
    /// An account data event, global or of a room.
    AccountData {
        /// The room, or none for global data.
        room: Option<OwnedRoomId>,
        /// The event type.
        kind: String,
    },
    /// The list of devices or their names.
    Devices,
    /// The profile.
    Profile,
    /// The account's state: locked, suspended, deactivated.
    Account,
    /// The keys of the devices, or which devices have keys: what others are told of.
    DeviceList,
    /// Messages for devices arrived.
    ToDevice,
    /// The subscription to a thread.
    Thread {
        /// The room.
        room: OwnedRoomId,
        /// The event at which the thread begins.
        root: OwnedEventId,
    },
}

impl Change {
    fn kind(&self) -> u8 {
        match self {
            Self::Room(_) => 1,
            Self::AccountData { .. } => 2,
            Self::Devices => 3,
            Self::Profile => 4,
            Self::Account => 5,
            Self::DeviceList => 6,
            Self::ToDevice => 7,
            Self::Thread { .. } => 8,
        }
    }

    /// Whether what changed is part of what the caches hold of a user.
    pub(crate) fn is_cached(&self) -> bool {
        match self {
            Self::Profile | Self::Account => true,
            Self::AccountData { room: None, kind } => kind == crate::data::IGNORED_USERS,
            Self::AccountData { .. }
            | Self::Room(_)
            | Self::Devices
            | Self::DeviceList
            | Self::ToDevice
            | Self::Thread { .. } => false,
        }
    }

    /// Kind u8, then for a room its id, for account data room id, 0, type, for a thread room id, 0, root.
    pub(crate) fn encode(&self) -> String {
        let mut out = String::from(char::from(self.kind()));
        match self {
            Self::Room(room) => out.push_str(room.as_str()),
            Self::AccountData { room, kind } => {
                out.push_str(room.as_deref().map_or("", RoomId::as_str));
                out.push('\0');
                out.push_str(kind);
            }
            Self::Thread { room, root } => {
                out.push_str(room.as_str());
                out.push('\0');
                out.push_str(root.as_str());
            }
            Self::Devices | Self::Profile | Self::Account | Self::DeviceList | Self::ToDevice => {}
        }
        out
    }

    /// `None` for a kind that this version does not know: a newer one wrote it, and it is passed over.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let rest = std::str::from_utf8(rest).ok()?;
        match kind {
            1 => Some(Self::Room(OwnedRoomId::try_from(rest).ok()?)),
            2 => {
                let (room, kind) = rest.split_once('\0')?;
                let room = if room.is_empty() {
                    None
                } else {
                    Some(OwnedRoomId::try_from(room).ok()?)
                };
                Some(Self::AccountData {
                    room,
                    kind: kind.to_owned(),
                })
            }
            3 => Some(Self::Devices),
            4 => Some(Self::Profile),
            5 => Some(Self::Account),
            6 => Some(Self::DeviceList),
            7 => Some(Self::ToDevice),
            8 => {
                let (room, root) = rest.split_once('\0')?;
                Some(Self::Thread {
                    room: OwnedRoomId::try_from(room).ok()?,
                    root: OwnedEventId::try_from(root).ok()?,
                })
            }
            _ => None,
        }
    }
}

/// Writes a change into the stream and takes its older entry out.
pub(crate) fn record(
    tx: &mut Tx<'_>,
    key: EntityKey,
    position: Position,
    index: u16,
    change: &Change,
) -> Result<()> {
    let reference = change.encode();
    let at = keys::user(key, field::CHANGED_AT, &reference);
    if let Some([TAG, old @ ..]) = tx.get(Family::User, &at)?.as_deref() {
        tx.delete(Family::UserChange, [&key.to_bytes(), old].concat());
    }
    let row = keys::change(key, position, index);
    tx.put(Family::User, at, [&[TAG], &row[EntityKey::LEN..]].concat());
    tx.put(Family::UserChange, row, [&[TAG], reference.as_bytes()].concat());
    Ok(())
}

/// The changes after `since` up to and including `until`, oldest first.
pub(crate) fn between(
    reader: &dyn Reader,
    key: EntityKey,
    since: Position,
    until: Position,
) -> Result<Vec<(Position, Change)>> {
    let mut found = Vec::new();
    if since >= until {
        return Ok(found);
    }
    let start = keys::change(key, since.saturating_add(1), 0);
    let end = match until.checked_add(1) {
        Some(after) => keys::change(key, after, 0),
        None => hearth_storage::prefix_end(&key.to_bytes()),
    };
    reader.scan(Family::UserChange, &start, &end, false, &mut |at, value| {
        let position = at
            .get(6..14)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes);
        let change = value
            .split_first()
            .filter(|(tag, _)| **tag == TAG)
            .and_then(|(_, value)| Change::decode(value));
        if let (Some(position), Some(change)) = (position, change) {
            found.push((position, change));
        }
        true
    })?;
    Ok(found)
}

impl User {
    /// What changed after a position, oldest first, as far as it is published.
    pub fn changes_since(&self, since: Position) -> Result<Vec<(Position, Change)>> {
        self.now().changes_between(since, Position::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_survives_its_encoding() {
        let room = OwnedRoomId::try_from("!a:b").unwrap();
        let all = [
            Change::Room(room.clone()),
            Change::AccountData {
                room: None,
                kind: "m.direct".into(),
            },
            Change::AccountData {
                room: Some(room.clone()),
                kind: "m.tag".into(),
            },
            Change::Thread {
                room,
                root: OwnedEventId::try_from("$a").unwrap(),
            },
            Change::Devices,
            Change::Profile,
            Change::Account,
            Change::DeviceList,
            Change::ToDevice,
        ];
        for change in all {
            assert_eq!(Change::decode(change.encode().as_bytes()), Some(change));
        }
        assert_eq!(Change::decode(&[200]), None);
        assert_eq!(Change::decode(&[]), None);
    }
}
