//! What is stored of the versions: which there are, and the record of each.

use hearth_storage::{EntityKey, Family, Reader, record};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::BackupState;
use crate::error::{Error, Result};
use crate::keys::{self, field};
use crate::write::Tx;

/// Which versions a user has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Head {
    /// The last version that was made. One up to it that is not in `live` was deleted.
    pub(super) last: u64,
    /// The last set number that was given.
    pub(super) last_set: u64,
    /// The versions there are, ascending.
    pub(super) live: Vec<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct VersionRecord {
    pub(super) algorithm: String,
    pub(super) auth_data: Box<RawValue>,
    pub(super) set: u64,
    pub(super) count: u64,
    pub(super) etag: u64,
}

impl VersionRecord {
    pub(super) fn state(&self) -> BackupState {
        BackupState {
            count: self.count,
            etag: self.etag.to_string(),
        }
    }
}

pub(super) fn load(tx: &Tx<'_>, user: EntityKey, number: u64) -> Result<VersionRecord> {
    version_of(tx.get(Family::User, &version_row(user, number))?)
}

pub(super) fn read(reader: &dyn Reader, user: EntityKey, number: u64) -> Result<VersionRecord> {
    version_of(reader.get(Family::User, &version_row(user, number))?)
}

pub(super) fn store(tx: &mut Tx<'_>, user: EntityKey, number: u64, backup: &VersionRecord) {
    tx.put(Family::User, version_row(user, number), record::encode(backup));
}

pub(super) fn load_head(tx: &Tx<'_>, user: EntityKey) -> Result<Head> {
    head_of(tx.get(Family::User, &head_row(user))?)
}

pub(super) fn read_head(reader: &dyn Reader, user: EntityKey) -> Result<Head> {
    head_of(reader.get(Family::User, &head_row(user))?)
}

pub(super) fn store_head(tx: &mut Tx<'_>, user: EntityKey, head: &Head) {
    tx.put(Family::User, head_row(user), record::encode(head));
}

fn version_of(value: Option<Vec<u8>>) -> Result<VersionRecord> {
    Ok(record::decode(&value.ok_or_else(unknown)?)?)
}

fn head_of(value: Option<Vec<u8>>) -> Result<Head> {
    let head = value.as_deref().map(record::decode).transpose()?;
    Ok(head.unwrap_or_default())
}

fn head_row(user: EntityKey) -> Vec<u8> {
    keys::user(user, field::KEY_BACKUPS, "")
}

pub(super) fn version_row(user: EntityKey, number: u64) -> Vec<u8> {
    keys::user(user, field::KEY_BACKUP_VERSION, &format!("{number:020}"))
}

pub(super) fn unknown() -> Error {
    Error::NotFound("Backup version")
}
