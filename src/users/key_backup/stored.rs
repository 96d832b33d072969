//! The encrypted keys as they are stored, compared and rendered.

use hearth_storage::schema::key_backup::KeyBackupKey;
use hearth_storage::{EntityKey, Family, Reader, record};
use ruma::RoomId;

use super::BackupKey;
use crate::error::{Error, Result};
use crate::user::User;
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

/// About so much of an answer is made at once, in bytes.
const PART_BYTES: usize = 1 << 20;

/// The keys of a backup, or of a room in it, as the JSON that the specification gives them. It is made part by part: all of
/// it may be more than fits into memory, and a client may read it slowly.
#[derive(Debug)]
pub struct BackupKeys {
    user: User,
    /// The rows that are left: from here,
    next: Vec<u8>,
    /// up to here.
    end: Vec<u8>,
    /// Whether the rooms are named.
    with_rooms: bool,
    /// The room whose keys are being written.
    room: Option<String>,
    /// Whether the next key is the first of its object.
    is_first: bool,
    is_begun: bool,
    is_done: bool,
}

impl BackupKeys {
    /// Those of a set, or of a room in it.
    pub(super) fn new(user: User, set: u64, room: Option<&RoomId>) -> Self {
        let next = match room {
            Some(room) => key_row(user.key, set, room.as_str(), ""),
            None => set_prefix(user.key, set),
        };
        Self {
            user,
            end: hearth_storage::prefix_end(&next),
            next,
            with_rooms: room.is_none(),
            room: None,
            is_first: true,
            is_begun: false,
            is_done: false,
        }
    }

    /// Whether there is no other part.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// The next part, and what is left. It is read off the threads that serve requests.
    pub async fn part(mut self) -> Result<(String, Self)> {
        let pool = self.user.users.pool.clone();
        pool.run(move || {
            let mut out = String::new();
            self.write_part(&mut out)?;
            Ok((out, self))
        })
        .await
    }

    fn write_part(&mut self, out: &mut String) -> Result<()> {
        if !std::mem::replace(&mut self.is_begun, true) {
            out.push_str(match self.with_rooms {
                true => r#"{"rooms":{"#,
                false => r#"{"sessions":{"#,
            });
        }
        let (log, start, end) = (self.user.users.log.clone(), self.next.clone(), self.end.clone());
        let (mut is_corrupt, mut is_last) = (false, true);
        log.engine()
            .scan(Family::KeyBackup, &start, &end, false, &mut |row, value| {
                if out.len() >= PART_BYTES {
                    self.next = row.to_vec();
                    is_last = false;
                    return false;
                }
                let (Some(key), Some(stored)) = (KeyBackupKey::decode(row), Stored::decode(value)) else {
                    is_corrupt = true;
                    return false;
                };
                self.write_key(&key, &stored, out);
                true
            })?;
        if is_corrupt {
            return Err(hearth_storage::Error::Corrupt("backed-up key").into());
        }
        if is_last {
            out.push_str(if self.room.is_some() { "}}}}" } else { "}}" });
            self.is_done = true;
        }
        Ok(())
    }

    fn write_key(&mut self, key: &KeyBackupKey<'_>, stored: &Stored<'_>, out: &mut String) {
        if self.with_rooms && self.room.as_deref() != Some(&*key.room.0) {
            out.push_str(if self.room.is_some() { "}}," } else { "" });
            push_text(out, &key.room.0);
            out.push_str(r#":{"sessions":{"#);
            self.room = Some(key.room.0.to_string());
            self.is_first = true;
        }
        out.push_str(if self.is_first { "" } else { "," });
        self.is_first = false;
        push_text(out, &key.session.0);
        out.push(':');
        stored.write(out);
    }
}

/// One key as JSON.
pub(super) fn render(
    reader: &dyn Reader,
    user: EntityKey,
    set: u64,
    room: &RoomId,
    session: &str,
) -> Result<String> {
    let value = reader.get(Family::KeyBackup, &key_row(user, set, room.as_str(), session))?;
    let mut out = String::new();
    Stored::of(&value.ok_or(Error::NotFound("Key"))?)?.write(&mut out);
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
