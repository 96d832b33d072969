//! The encrypted keys as they are stored, compared and rendered.

use hearth_storage::schema::key_backup::KeyBackupKey;
use hearth_storage::{EntityKey, Family, Reader, record};

use super::{BackupKey, BackupScope};
use crate::error::{Error, Result};
use crate::write::Tx;

/// The tag of a stored key.
const KEY_V1: u8 = 1;
/// The flag of a key from a verified device.
const VERIFIED: u8 = 1;

/// What decides whether a key replaces another, and the encrypted key.
pub(super) struct Stored<'a> {
    is_verified: bool,
    first_message_index: u64,
    forwarded_count: u64,
    session_data: &'a str,
}

impl<'a> Stored<'a> {
    pub(super) fn of(value: &'a [u8]) -> Result<Self> {
        Self::decode(value).ok_or_else(|| hearth_storage::Error::Corrupt("backed-up key").into())
    }

    fn decode(value: &'a [u8]) -> Option<Self> {
        let (&[KEY_V1, flags], mut rest) = value.split_first_chunk::<2>()? else {
            return None;
        };
        Some(Self {
            is_verified: flags & VERIFIED != 0,
            first_message_index: record::take_varint(&mut rest)?,
            forwarded_count: record::take_varint(&mut rest)?,
            session_data: std::str::from_utf8(rest).ok()?,
        })
    }

    fn write(&self, out: &mut String) {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            r#"{{"first_message_index":{},"forwarded_count":{},"is_verified":{},"session_data":{}}}"#,
            self.first_message_index, self.forwarded_count, self.is_verified, self.session_data,
        );
    }
}

pub(super) fn encode(key: &BackupKey) -> Vec<u8> {
    let data = key.session_data.get();
    let mut value = Vec::with_capacity(8 + data.len());
    value.push(KEY_V1);
    value.push(if key.is_verified { VERIFIED } else { 0 });
    record::put_varint(&mut value, key.first_message_index);
    record::put_varint(&mut value, key.forwarded_count);
    value.extend_from_slice(data.as_bytes());
    value
}

/// The rule of the specification: verified ones first, then the lower first index, then the lower forwarded count.
pub(super) fn is_better(new: &BackupKey, old: &Stored<'_>) -> bool {
    let rank = |verified: bool, first: u64, forwarded: u64| (!verified, first, forwarded);
    rank(new.is_verified, new.first_message_index, new.forwarded_count)
        < rank(old.is_verified, old.first_message_index, old.forwarded_count)
}

pub(super) fn render(reader: &dyn Reader, user: EntityKey, set: u64, scope: &BackupScope) -> Result<String> {
    let mut out = String::new();
    let prefix = match scope {
        BackupScope::Session(room, session) => {
            let value = reader.get(Family::KeyBackup, &key_row(user, set, room.as_str(), session))?;
            Stored::of(&value.ok_or(Error::NotFound("Key"))?)?.write(&mut out);
            return Ok(out);
        }
        BackupScope::Room(room) => key_row(user, set, room.as_str(), ""),
        BackupScope::All => set_prefix(user, set),
    };
    let with_rooms = *scope == BackupScope::All;
    out.push_str(if with_rooms {
        r#"{"rooms":{"#
    } else {
        r#"{"sessions":{"#
    });
    let mut room: Option<String> = None;
    let mut is_first = true;
    let mut corrupt = false;
    let end = hearth_storage::prefix_end(&prefix);
    reader.scan(Family::KeyBackup, &prefix, &end, false, &mut |row, value| {
        let (Some(key), Some(stored)) = (KeyBackupKey::decode(row), Stored::decode(value)) else {
            corrupt = true;
            return false;
        };
        if with_rooms && room.as_deref() != Some(&*key.room.0) {
            out.push_str(if room.is_some() { "}}," } else { "" });
            push_text(&mut out, &key.room.0);
            out.push_str(r#":{"sessions":{"#);
            room = Some(key.room.0.into_owned());
            is_first = true;
        }
        out.push_str(if is_first { "" } else { "," });
        is_first = false;
        push_text(&mut out, &key.session.0);
        out.push(':');
        stored.write(&mut out);
        true
    })?;
    if corrupt {
        return Err(hearth_storage::Error::Corrupt("backed-up key").into());
    }
    out.push_str(if room.is_some() { "}}}}" } else { "}}" });
    Ok(out)
}

fn push_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// Deletes a set of keys. Nothing reads the set afterwards, also before the deletion is durable: its record is gone
/// or names another one.
pub(super) fn delete_set(tx: &mut Tx<'_>, user: EntityKey, set: u64) {
    let start = set_prefix(user, set);
    let end = hearth_storage::prefix_end(&start);
    tx.batch().delete_range(Family::KeyBackup, start, end);
}

pub(super) fn key_row(user: EntityKey, set: u64, room: &str, session: &str) -> Vec<u8> {
    let key = KeyBackupKey {
        user,
        set,
        room: room.into(),
        session: session.into(),
    };
    key.encode()
}

fn set_prefix(user: EntityKey, set: u64) -> Vec<u8> {
    [&user.to_bytes()[..], &set.to_be_bytes()].concat()
}
