//! The rows of family `room_index` from which unread counts are derived.

use hearth_events::notification::Class;
use hearth_storage::EntityKey;
use ruma::UserId;

use crate::{
    Error,
    event::{Place, Short},
    keys::{self, place_bytes, tagged, untagged},
};

/// Root, place of a counted event of the thread → the thread's totals there.
pub(crate) fn thread_count(key: EntityKey, root: Short, place: Place) -> Vec<u8> {
    keys::index(
        key,
        keys::INDEX_THREAD_COUNT,
        &[&root.to_be_bytes(), &place_bytes(place)],
    )
}

/// The range of all rows of [`thread_count`] for a root, and how many bytes stand before the place. The rows of
/// [`keys::cited`] come behind it.
pub(crate) fn thread_counts(key: EntityKey, root: Short) -> (Vec<u8>, Vec<u8>, usize) {
    let start = keys::index(key, keys::INDEX_THREAD_COUNT, &[&root.to_be_bytes()]);
    let skip = start.len();
    (start, keys::cited(key, root, 1), skip)
}

/// Place of a thread's last counted event, root → nothing.
pub(crate) fn counted_thread(key: EntityKey, place: Place, root: Short) -> Vec<u8> {
    keys::index(
        key,
        keys::INDEX_THREAD_COUNTED,
        &[&place_bytes(place), &root.to_be_bytes()],
    )
}

/// User, 0, place of an event that names the user → its short id and thread.
pub(crate) fn named(key: EntityKey, user: &UserId, place: Place) -> Vec<u8> {
    keys::index(
        key,
        keys::INDEX_NAMED,
        &[user.as_bytes(), &[0], &place_bytes(place)],
    )
}

pub(crate) fn named_value(short: Short, thread: Option<Short>) -> Vec<u8> {
    tagged(&[short.to_be_bytes(), thread.unwrap_or(0).to_be_bytes()].concat())
}

pub(crate) fn read_named(value: &[u8]) -> Result<(Short, Option<Short>), Error> {
    let value = untagged(value).ok_or(NAMED)?;
    let short = keys::read_u32(value, "named user")?;
    Ok((short, root(value.get(4..).unwrap_or_default())?))
}

const NAMED: Error = Error::Damaged("named user");

/// User, 0, root of a thread or 0 → the place of the user's last event there.
pub(crate) fn own(key: EntityKey, user: &UserId, thread: Option<Short>) -> Vec<u8> {
    let thread = thread.unwrap_or(0).to_be_bytes();
    keys::index(key, keys::INDEX_OWN, &[user.as_bytes(), &[0], &thread])
}

/// All rows of [`own`] for a user.
pub(crate) fn owns(key: EntityKey, user: &UserId) -> Vec<u8> {
    keys::index(key, keys::INDEX_OWN, &[user.as_bytes(), &[0]])
}

/// Place of a counted event that was redacted since → its class and thread.
pub(crate) fn uncounted(key: EntityKey, place: Place) -> Vec<u8> {
    keys::index(key, keys::INDEX_UNCOUNTED, &[&place_bytes(place)])
}

pub(crate) fn uncounted_value(class: Class, thread: Option<Short>) -> Vec<u8> {
    let mut value = vec![class.to_u8()];
    value.extend_from_slice(&thread.unwrap_or(0).to_be_bytes());
    tagged(&value)
}

pub(crate) fn read_uncounted(value: &[u8]) -> Result<(Class, Option<Short>), Error> {
    let value = untagged(value).unwrap_or_default();
    let (class, thread) = value.split_first().ok_or(Error::Damaged("redacted event"))?;
    Ok((Class::from_u8(*class), root(thread)?))
}

/// A root as stored: 0 is none.
pub(crate) fn root(bytes: &[u8]) -> Result<Option<Short>, Error> {
    Ok(Some(keys::read_u32(bytes, "thread root")?).filter(|root| *root != 0))
}
