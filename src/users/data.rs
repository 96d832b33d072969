//! Account data: JSON objects by type, for the whole account or for a room. Tags, the fully-read marker, push rules
//! and ignored users are account data of the types that the specification gives them.

use std::collections::BTreeSet;

use hearth_core::limits;
use hearth_storage::schema::user_data::UserDataKey;
use hearth_storage::{EntityKey, Family, Position, Reader};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::change::Change;
use crate::error::{Error, Result};
use crate::keys;
use crate::user::User;
use crate::write::Tx;

/// The type of the list of ignored users.
pub const IGNORED_USERS: &str = "m.ignored_user_list";
/// The type of the push rules.
pub const PUSH_RULES: &str = "m.push_rules";
/// The type of a room's tags.
pub const TAG: &str = "m.tag";
/// The type of a room's fully-read marker.
pub const FULLY_READ: &str = "m.fully_read";
/// The type of the direct chats.
pub const DIRECT: &str = "m.direct";

/// The tag of a stored value: then the position u64, then the JSON text; no text means deleted.
const VALUE_V1: u8 = 1;

/// An account data event.
#[derive(Clone, Debug)]
pub struct AccountData {
    /// Its type.
    pub kind: String,
    /// Its content, an object; `{}` where it was deleted.
    pub content: Box<RawValue>,
    /// Where in the user's shard it was last changed.
    pub position: Position,
    /// Whether it was deleted: sync says so with an empty content, a GET with 404.
    pub deleted: bool,
}

/// Whether clients change this type only through endpoints of its own.
pub fn is_server_controlled(kind: &str) -> bool {
    matches!(kind, PUSH_RULES | FULLY_READ)
}

impl User {
    /// One account data event, if it is set.
    pub fn account_data(&self, room: Option<&RoomId>, kind: &str) -> Result<Option<Box<RawValue>>> {
        Ok(self
            .now()
            .account_data(room, kind)?
            .filter(|data| !data.deleted)
            .map(|data| data.content))
    }

    /// Sets an account data event. The same content again is no change.
    pub async fn set_account_data(
        &self,
        room: Option<&RoomId>,
        kind: &str,
        content: &RawValue,
    ) -> Result<()> {
        check(kind, content.get())?;
        self.write(|tx| put(tx, self.key, room, kind, Some(content.get())))
            .await
    }

    /// Deletes an account data event.
    pub async fn delete_account_data(&self, room: Option<&RoomId>, kind: &str) -> Result<()> {
        self.write(|tx| put(tx, self.key, room, kind, None)).await
    }

    /// Changes an account data event in one operation: `change` gets the content as it is (`None` where it is not
    /// set) and leaves what it is to be. Its refusal is given back as it is, and changes nothing.
    pub async fn update_account_data<T: Send, E: Send>(
        &self,
        room: Option<&RoomId>,
        kind: &str,
        change: impl FnOnce(&mut Option<Value>) -> std::result::Result<T, E> + Send,
    ) -> Result<std::result::Result<T, E>> {
        self.write(|tx| {
            let mut content = read_value(tx, self.key, room, kind)?;
            let before = content.clone();
            let outcome = change(&mut content);
            if outcome.is_ok() && content != before {
                put_value(tx, self.key, room, kind, content.as_ref())?;
            }
            Ok(outcome)
        })
        .await
    }

    /// Sets a tag of a room.
    pub async fn set_tag(&self, room: &RoomId, tag: &str, info: Map<String, Value>) -> Result<()> {
        if tag.len() > limits::ID_MAX_BYTES {
            return Err(Error::InvalidParam("A tag has at most 255 bytes"));
        }
        let set = |content: &mut Option<Value>| {
            let mut tags = tags_of(content.take());
            tags.insert(tag.to_owned(), Value::Object(info));
            *content = Some(json!({ "tags": tags }));
            Ok::<(), Error>(())
        };
        self.update_account_data(Some(room), TAG, set).await?
    }

    /// Takes a tag off a room.
    pub async fn delete_tag(&self, room: &RoomId, tag: &str) -> Result<()> {
        let unset = |content: &mut Option<Value>| {
            if content.is_some() {
                let mut tags = tags_of(content.take());
                tags.remove(tag);
                *content = Some(json!({ "tags": tags }));
            }
            Ok::<(), Error>(())
        };
        self.update_account_data(Some(room), TAG, unset).await?
    }

    /// The tags of a room.
    pub fn tags(&self, room: &RoomId) -> Result<Map<String, Value>> {
        let content = self.account_data(Some(room), TAG)?;
        Ok(tags_of(
            content.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        ))
    }

    /// Sets the fully-read marker of a room.
    pub async fn set_fully_read(&self, room: &RoomId, event_id: &ruma::EventId) -> Result<()> {
        let content = to_raw_value(&json!({ "event_id": event_id }))
            .map_err(|error| Error::Internal(error.to_string()))?;
        self.set_account_data(Some(room), FULLY_READ, &content).await
    }

    /// Changes the content of m.push_rules in one operation, beginning with `default` where none is stored.
    pub async fn update_push_rules<T: Send, E: Send>(
        &self,
        default: impl FnOnce(&UserId) -> Value + Send,
        change: impl FnOnce(&mut Value) -> std::result::Result<T, E> + Send,
    ) -> Result<std::result::Result<T, E>> {
        self.update_account_data(None, PUSH_RULES, |content| {
            let mut rules = content.take().unwrap_or_else(|| default(&self.id));
            let outcome = change(&mut rules);
            *content = Some(rules);
            outcome
        })
        .await
    }

    /// Whether this user ignores another.
    pub fn ignores(&self, other: &UserId) -> Result<bool> {
        Ok(self.ignored_users()?.contains(other))
    }
}

/// The ignored users that a stored value lists; what is not understood ignores nobody.
pub(crate) fn ignored_users(value: Option<&[u8]>) -> BTreeSet<OwnedUserId> {
    let content: Option<Value> = value
        .and_then(decode)
        .and_then(|(_, text)| serde_json::from_str(text).ok());
    let users = content
        .as_ref()
        .and_then(|content| content.get("ignored_users"))
        .and_then(Value::as_object);
    users
        .into_iter()
        .flat_map(Map::keys)
        .filter_map(|id| OwnedUserId::try_from(id.as_str()).ok())
        .collect()
}

/// Settings that are kept for one device, and go with it (MSC3890).
const DEVICE_SETTINGS: [&str; 2] = [
    "org.matrix.msc3890.local_notification_settings.",
    "m.local_notification_settings.",
];

/// Deletes the account data that is kept for a device.
pub(crate) fn drop_of_device(tx: &mut Tx<'_>, key: EntityKey, device: &ruma::DeviceId) -> Result<()> {
    for kind in DEVICE_SETTINGS {
        put(tx, key, None, &format!("{kind}{device}"), None)?;
    }
    Ok(())
}

/// Puts the push rules for subscriptions to threads in force.
pub(crate) fn follow_subscriptions(tx: &mut Tx<'_>, key: EntityKey, user: &UserId) -> Result<()> {
    let mut content = read_value(tx, key, None, PUSH_RULES)?;
    let global = content.as_mut().and_then(|content| content.get_mut("global"));
    let mut rules = hearth_events::push::ruleset(global.map(Value::take), user);
    rules.follow_subscriptions();
    put_if_it_fits(tx, key, None, PUSH_RULES, &rules.to_stored(user))
}

/// What has grown too large stays as it is: the operation that brings the change along must not fail for it.
pub(crate) fn put_if_it_fits(
    tx: &mut Tx<'_>,
    key: EntityKey,
    room: Option<&RoomId>,
    kind: &str,
    content: &Value,
) -> Result<()> {
    match put_value(tx, key, room, kind, Some(content)) {
        Err(error @ (Error::TooLarge(_) | Error::InvalidParam(_))) => {
            tracing::warn!(%error, kind, "a user's settings do not follow what was done, because they would be too large");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Writes an account data event, unless it is what stands there.
fn put(
    tx: &mut Tx<'_>,
    key: EntityKey,
    room: Option<&RoomId>,
    kind: &str,
    content: Option<&str>,
) -> Result<()> {
    let row = keys::data(key, room.map_or("", RoomId::as_str), kind);
    let text = content.unwrap_or("");
    let before = tx.get(Family::UserData, &row)?;
    match before.as_deref().and_then(decode) {
        Some((_, old)) if old == text => return Ok(()),
        None if content.is_none() => return Ok(()),
        _ => {}
    }
    let mut value = Vec::with_capacity(9 + text.len());
    value.push(VALUE_V1);
    value.extend_from_slice(&tx.position().to_be_bytes());
    value.extend_from_slice(text.as_bytes());
    let grows = before.is_none_or(|before| before.len() < value.len());
    if grows && value.len() > SMALL_BYTES {
        check_whole(tx, key, &row, value.len())?;
    }
    tx.put(Family::UserData, row, value);
    tx.changed(Change::AccountData {
        room: room.map(ToOwned::to_owned),
        kind: kind.to_owned(),
    })
}

/// What is no larger, as read markers and tags are, is written without a look at all the rest, which an account with many
/// rooms has much of; to fill an account with it takes longer than the limits of requests allow.
const SMALL_BYTES: usize = 4 << 10;

/// Refuses a value with which the user would have too much account data. What was deleted counts too: its row stays.
fn check_whole(tx: &Tx<'_>, key: EntityKey, row: &[u8], value_bytes: usize) -> Result<()> {
    let rows = tx.scan(Family::UserData, &key.to_bytes())?;
    let others = rows.iter().filter(|(other, _)| other != row);
    let others: usize = others.map(|(other, value)| other.len() + value.len()).sum();
    if others + row.len() + value_bytes > limits::ACCOUNT_DATA_PER_USER_MAX_BYTES {
        return Err(Error::TooLarge("All of your account data is larger than 16 MiB"));
    }
    Ok(())
}

fn put_value(
    tx: &mut Tx<'_>,
    key: EntityKey,
    room: Option<&RoomId>,
    kind: &str,
    content: Option<&Value>,
) -> Result<()> {
    let text = content.map(Value::to_string);
    if let Some(text) = &text {
        check(kind, text)?;
    }
    put(tx, key, room, kind, text.as_deref())
}

pub(crate) fn read_value(
    tx: &Tx<'_>,
    key: EntityKey,
    room: Option<&RoomId>,
    kind: &str,
) -> Result<Option<Value>> {
    let value = tx.get(
        Family::UserData,
        &keys::data(key, room.map_or("", RoomId::as_str), kind),
    )?;
    let text = value
        .as_deref()
        .and_then(decode)
        .map(|(_, text)| text)
        .filter(|text| !text.is_empty());
    text.map(serde_json::from_str)
        .transpose()
        .map_err(|_| hearth_storage::Error::Corrupt("account data").into())
}

/// The account data events of a room, or the global ones, with those that were deleted.
pub(crate) fn all(reader: &dyn Reader, key: EntityKey, room: Option<&RoomId>) -> Result<Vec<AccountData>> {
    let prefix = keys::data_room(key, room.map_or("", RoomId::as_str));
    let mut found = Vec::new();
    let end = hearth_storage::prefix_end(&prefix);
    reader.scan(Family::UserData, &prefix, &end, false, &mut |row, value| {
        if let Ok(kind) = std::str::from_utf8(&row[prefix.len()..]) {
            found.extend(event(kind, value));
        }
        true
    })?;
    Ok(found)
}

/// The account data of all rooms.
pub(crate) fn of_rooms(reader: &dyn Reader, key: EntityKey) -> Result<Vec<(OwnedRoomId, AccountData)>> {
    // Global data stands first: its room is empty.
    let start = hearth_storage::prefix_end(&keys::data_room(key, ""));
    let end = hearth_storage::prefix_end(&key.to_bytes());
    let mut found = Vec::new();
    reader.scan(Family::UserData, &start, &end, false, &mut |row, value| {
        let row = UserDataKey::decode(row);
        let room = row
            .as_ref()
            .and_then(|row| OwnedRoomId::try_from(&*row.room.0).ok());
        let data = row.as_ref().and_then(|row| event(&row.kind.0, value));
        found.extend(room.zip(data));
        true
    })?;
    Ok(found)
}

/// One account data event.
pub(crate) fn one(
    reader: &dyn Reader,
    key: EntityKey,
    room: Option<&RoomId>,
    kind: &str,
) -> Result<Option<AccountData>> {
    let value = reader.get(
        Family::UserData,
        &keys::data(key, room.map_or("", RoomId::as_str), kind),
    )?;
    Ok(value.and_then(|value| event(kind, &value)))
}

fn event(kind: &str, value: &[u8]) -> Option<AccountData> {
    let (position, text) = decode(value)?;
    let deleted = text.is_empty();
    let content = RawValue::from_string(if deleted { "{}".to_owned() } else { text.to_owned() }).ok()?;
    Some(AccountData {
        kind: kind.to_owned(),
        content,
        position,
        deleted,
    })
}

pub(crate) fn decode(value: &[u8]) -> Option<(Position, &str)> {
    let (&tag, rest) = value.split_first()?;
    let (position, text) = rest.split_first_chunk::<8>()?;
    if tag != VALUE_V1 {
        return None;
    }
    Some((u64::from_be_bytes(*position), std::str::from_utf8(text).ok()?))
}

fn check(kind: &str, content: &str) -> Result<()> {
    if kind.is_empty() || kind.len() > limits::ID_MAX_BYTES {
        return Err(Error::InvalidParam("A type has 1 to 255 bytes"));
    }
    if !content.starts_with('{') {
        return Err(Error::InvalidParam("The content must be an object"));
    }
    if content.len() > limits::ACCOUNT_DATA_MAX_BYTES {
        return Err(Error::TooLarge("The content is larger than 256 KiB"));
    }
    Ok(())
}

fn tags_of(content: Option<Value>) -> Map<String, Value> {
    match content {
        Some(Value::Object(mut content)) => match content.remove("tags") {
            Some(Value::Object(tags)) => tags,
            _ => Map::new(),
        },
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_users_are_read_leniently() {
        let value = |text: &str| [&[VALUE_V1, 0, 0, 0, 0, 0, 0, 0, 1], text.as_bytes()].concat();
        let good = value(r#"{"ignored_users": {"@a:b": {}, "no id": {}}}"#);
        assert_eq!(ignored_users(Some(&good)).len(), 1);
        for odd in [
            value(""),
            value("[]"),
            value(r#"{"ignored_users": 3}"#),
            vec![9],
            vec![],
        ] {
            assert!(ignored_users(Some(&odd)).is_empty());
        }
    }
}
