//! Key backups: versions, of which the newest is current, and the encrypted room keys of each.
//!
//! A version's record holds the count and the etag of its keys, so neither is ever counted. The keys of a version
//! stand in a *set*, which the record names by a number that is never used again: deleting all keys is a new number
//! and one range deletion.

mod stored;
#[cfg(test)]
mod tests;
mod versions;

use hearth_core::limits;
use hearth_storage::{EntityKey, Family};
use ruma::{OwnedRoomId, RoomId};
use serde_json::value::RawValue;
pub use stored::BackupKeys;
use stored::{Stored, delete_set, encode, is_better, key_row, render};
use versions::{VersionRecord, load, load_head, read, read_head, store, store_head, unknown, version_row};

use crate::error::{Error, Result};
use crate::user::User;
use crate::write::Tx;

/// How many keys of a room one batch deletes: the keys' keys of so many stay below the limit of a batch.
const DELETED_PER_BATCH: usize = 4_096;

/// Which keys of a backup are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupScope {
    /// All of them.
    All,
    /// Those of a room.
    Room(OwnedRoomId),
    /// That of one session.
    Session(OwnedRoomId, String),
}

/// A backed-up key as a client sends it.
#[derive(Debug)]
pub struct BackupKey {
    /// The room.
    pub room: OwnedRoomId,
    /// The megolm session's id.
    pub session: String,
    /// The first message that the key can decrypt.
    pub first_message_index: u64,
    /// How often the key was forwarded.
    pub forwarded_count: u64,
    /// Whether it came from a device that was verified.
    pub is_verified: bool,
    /// The encrypted key, an object.
    pub session_data: Box<RawValue>,
}

/// A backup version.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Its name.
    pub version: String,
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs, an object.
    pub auth_data: Box<RawValue>,
    /// How many keys it holds, and the state of them.
    pub state: BackupState,
}

/// How many keys a backup holds, and a text that changes with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupState {
    /// The number of keys.
    pub count: u64,
    /// It changes whenever a key does.
    pub etag: String,
}

impl User {
    /// Makes a backup version, which is then the current one, and gives its name.
    pub async fn create_backup(&self, algorithm: &str, auth_data: &RawValue) -> Result<String> {
        if algorithm.is_empty() || algorithm.len() > limits::ID_MAX_BYTES {
            return Err(Error::InvalidParam("An algorithm's name has 1 to 255 bytes"));
        }
        check_auth_data(auth_data)?;
        self.write(|tx| {
            let mut head = load_head(tx, self.key)?;
            if head.live.len() >= limits::KEY_BACKUPS_PER_USER_MAX {
                return Err(Error::TooMany("Too many key backups; delete an old one first"));
            }
            head.last += 1;
            head.last_set += 1;
            head.live.push(head.last);
            let backup = VersionRecord {
                algorithm: algorithm.to_owned(),
                auth_data: auth_data.to_owned(),
                set: head.last_set,
                count: 0,
                etag: 0,
            };
            store_head(tx, self.key, &head);
            store(tx, self.key, head.last, &backup);
            Ok(head.last.to_string())
        })
        .await
    }

    /// A backup version; without a name the current one.
    pub fn backup(&self, version: Option<&str>) -> Result<Backup> {
        let snapshot = self.users.log.engine().snapshot();
        let number = match version {
            Some(version) => parse(version)?,
            None => *read_head(&*snapshot, self.key)?
                .live
                .last()
                .ok_or(Error::NotFound("Current backup version"))?,
        };
        let backup = read(&*snapshot, self.key, number)?;
        Ok(Backup {
            version: number.to_string(),
            state: backup.state(),
            algorithm: backup.algorithm,
            auth_data: backup.auth_data,
        })
    }

    /// Changes what a version's algorithm needs; the algorithm itself must stay.
    pub async fn update_backup(&self, version: &str, algorithm: &str, auth_data: &RawValue) -> Result<()> {
        check_auth_data(auth_data)?;
        let number = parse(version)?;
        self.write(|tx| {
            let mut backup = load(tx, self.key, number)?;
            if backup.algorithm != algorithm {
                return Err(Error::InvalidParam("The algorithm is not that of the backup"));
            }
            auth_data.clone_into(&mut backup.auth_data);
            store(tx, self.key, number, &backup);
            Ok(())
        })
        .await
    }

    /// Deletes a version with its keys. One that was deleted before is no error, one that never was is.
    pub async fn delete_backup(&self, version: &str) -> Result<()> {
        let number = parse(version)?;
        self.write(|tx| {
            let mut head = load_head(tx, self.key)?;
            if number == 0 || number > head.last {
                return Err(unknown());
            }
            let Ok(at) = head.live.binary_search(&number) else {
                return Ok(());
            };
            let backup = load(tx, self.key, number)?;
            delete_set(tx, self.key, backup.set);
            head.live.remove(at);
            store_head(tx, self.key, &head);
            tx.delete(Family::User, version_row(self.key, number));
            Ok(())
        })
        .await
    }

    /// Stores keys in the current version in one batch. A key that is there is replaced only by a better one.
    pub async fn put_backup_keys(&self, version: &str, new: &[BackupKey]) -> Result<BackupState> {
        for key in new {
            check_key(key)?;
        }
        let number = parse(version)?;
        self.write(|tx| {
            let head = load_head(tx, self.key)?;
            let current = *head.live.last().ok_or_else(unknown)?;
            if current != number {
                return Err(match head.live.contains(&number) {
                    true => Error::WrongBackupVersion(current.to_string()),
                    false => unknown(),
                });
            }
            let mut backup = load(tx, self.key, number)?;
            let mut changed = false;
            for key in new {
                let row = key_row(self.key, backup.set, key.room.as_str(), &key.session);
                match tx.get(Family::KeyBackup, &row)? {
                    Some(old) if !is_better(key, &Stored::of(&old)?) => continue,
                    Some(_) => {}
                    None => backup.count += 1,
                }
                tx.put(Family::KeyBackup, row, encode(key));
                changed = true;
            }
            if backup.count > limits::KEY_BACKUP_MAX_KEYS {
                return Err(Error::TooMany("The backup holds too many keys"));
            }
            if changed {
                backup.etag += 1;
                store(tx, self.key, number, &backup);
            }
            Ok(backup.state())
        })
        .await
    }

    /// The keys of a version, or of a room in it, as the JSON that the specification gives them: an object with `rooms` or
    /// `sessions`.
    pub fn backup_keys(&self, version: &str, room: Option<&RoomId>) -> Result<BackupKeys> {
        let backup = read(self.users.log.engine().as_ref(), self.key, parse(version)?)?;
        // What is deleted meanwhile is left out: the set's number is never used again.
        Ok(BackupKeys::new(self.clone(), backup.set, room))
    }

    /// One key of a version as JSON.
    pub fn backup_key(&self, version: &str, room: &RoomId, session: &str) -> Result<Box<RawValue>> {
        // One snapshot, so that the set is still that of the record.
        let snapshot = self.users.log.engine().snapshot();
        let backup = read(&*snapshot, self.key, parse(version)?)?;
        let text = render(&*snapshot, self.key, backup.set, room, session)?;
        RawValue::from_string(text).map_err(|error| Error::Internal(error.to_string()))
    }

    /// Deletes keys of a version, which need not be the current one.
    pub async fn delete_backup_keys(&self, version: &str, scope: &BackupScope) -> Result<BackupState> {
        let number = parse(version)?;
        let (room, session) = match scope {
            BackupScope::All => return self.delete_all_backup_keys(number).await,
            BackupScope::Room(room) => (room, None),
            BackupScope::Session(room, session) => (room, Some(session)),
        };
        loop {
            let (deleted, state) = self
                .write(|tx| {
                    let mut backup = load(tx, self.key, number)?;
                    let rows = match session {
                        Some(session) => {
                            let row = key_row(self.key, backup.set, room.as_str(), session);
                            let found = tx.get(Family::KeyBackup, &row)?;
                            found.map(|_| row).into_iter().collect()
                        }
                        None => {
                            let of_room = key_row(self.key, backup.set, room.as_str(), "");
                            tx.first_keys(Family::KeyBackup, &of_room, DELETED_PER_BATCH)?
                        }
                    };
                    let deleted = rows.len();
                    for row in rows {
                        tx.delete(Family::KeyBackup, row);
                    }
                    if deleted > 0 {
                        backup.count = backup.count.saturating_sub(deleted as u64);
                        backup.etag += 1;
                        store(tx, self.key, number, &backup);
                    }
                    Ok((deleted, backup.state()))
                })
                .await?;
            if deleted < DELETED_PER_BATCH {
                return Ok(state);
            }
        }
    }

    async fn delete_all_backup_keys(&self, number: u64) -> Result<BackupState> {
        self.write(|tx| {
            let mut backup = load(tx, self.key, number)?;
            if backup.count > 0 {
                let mut head = load_head(tx, self.key)?;
                head.last_set += 1;
                delete_set(tx, self.key, backup.set);
                (backup.set, backup.count) = (head.last_set, 0);
                backup.etag += 1;
                store_head(tx, self.key, &head);
                store(tx, self.key, number, &backup);
            }
            Ok(backup.state())
        })
        .await
    }
}

/// Deletes all backups of a user.
pub(crate) fn remove(tx: &mut Tx<'_>, user: EntityKey) -> Result<()> {
    let mut head = load_head(tx, user)?;
    if head.live.is_empty() {
        return Ok(());
    }
    for number in std::mem::take(&mut head.live) {
        let backup = load(tx, user, number)?;
        delete_set(tx, user, backup.set);
        tx.delete(Family::User, version_row(user, number));
    }
    store_head(tx, user, &head);
    Ok(())
}

/// A version's number. One version has one name, so `01` is none.
fn parse(version: &str) -> Result<u64> {
    let number = version
        .parse()
        .ok()
        .filter(|number: &u64| number.to_string() == version);
    number.ok_or_else(unknown)
}

fn check_auth_data(auth_data: &RawValue) -> Result<()> {
    if !auth_data.get().starts_with('{') {
        return Err(Error::InvalidParam("auth_data must be an object"));
    }
    if auth_data.get().len() > limits::KEY_BACKUP_DATA_MAX_BYTES {
        return Err(Error::TooLarge("auth_data is larger than 64 KiB"));
    }
    Ok(())
}

fn check_key(key: &BackupKey) -> Result<()> {
    if key.session.is_empty() || key.session.len() > limits::ID_MAX_BYTES {
        return Err(Error::InvalidParam("A session id has 1 to 255 bytes"));
    }
    if !key.session_data.get().starts_with('{') {
        return Err(Error::InvalidParam("session_data must be an object"));
    }
    if key.session_data.get().len() > limits::KEY_BACKUP_DATA_MAX_BYTES {
        return Err(Error::TooLarge("session_data is larger than 64 KiB"));
    }
    Ok(())
}
