//! Where the sync engine keeps the shards of tokens that are too long to be given out whole. What is in the rows is the
//! engine's own; this is no change of the user that anybody is told of.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hearth_storage::{EntityKey, Family, Position, record};
use ruma::DeviceId;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::keys::{self, field};
use crate::user::User;
use crate::write::Tx;

/// The bases of one device that are kept: it seldom needs another than the last.
const BASES_PER_DEVICE_MAX: usize = 8;

#[derive(Serialize, Deserialize)]
struct BaseRecord {
    device: String,
    /// The batch that stored it: the lowest one gives way first.
    position: Position,
    /// In base64.
    shards: String,
}

fn row(key: EntityKey, name: &[u8]) -> Vec<u8> {
    keys::user(key, field::TOKEN_BASE, &URL_SAFE_NO_PAD.encode(name))
}

impl User {
    /// What was stored under a name, for any device.
    pub fn token_base(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = self.users.log.engine().get(Family::User, &row(self.key, name))?;
        let found: Option<BaseRecord> = value.as_deref().map(record::decode).transpose()?;
        Ok(found.and_then(|found| URL_SAFE_NO_PAD.decode(found.shards).ok()))
    }

    /// Stores something under a name for a device, durably; its oldest gives way. Nobody is woken. Says whether it stands
    /// there: a device that is gone must leave nothing behind.
    pub async fn put_token_base(&self, device: &str, name: &[u8], shards: &[u8]) -> Result<bool> {
        let row = row(self.key, name);
        let lanes = self.users.lanes.clone();
        lanes
            .write(self.key.slot, |tx| {
                let known = device.is_empty()
                    || tx
                        .get(Family::UserDevice, &keys::device(self.key, device))?
                        .is_some();
                if !known || tx.get(Family::User, &row)?.is_some() {
                    return Ok(known);
                }
                let mut bases = of_device(tx, self.key, device)?;
                bases.sort_unstable();
                let too_many = (bases.len() + 1).saturating_sub(BASES_PER_DEVICE_MAX);
                for (_, row) in bases.into_iter().take(too_many) {
                    tx.delete(Family::User, row);
                }
                let value = BaseRecord {
                    device: device.to_owned(),
                    position: tx.position(),
                    shards: URL_SAFE_NO_PAD.encode(shards),
                };
                tx.put(Family::User, row, record::encode(&value));
                Ok(true)
            })
            .await
    }
}

fn of_device(tx: &Tx<'_>, key: EntityKey, device: &str) -> Result<Vec<(Position, Vec<u8>)>> {
    let mut found = Vec::new();
    for (row, value) in tx.scan(Family::User, &keys::user(key, field::TOKEN_BASE, ""))? {
        let base: BaseRecord = record::decode(&value)?;
        if base.device == device {
            found.push((base.position, row));
        }
    }
    Ok(found)
}

/// Removes all bases of a device.
pub(crate) fn remove_device(tx: &mut Tx<'_>, key: EntityKey, device: &DeviceId) -> Result<()> {
    for (_, row) in of_device(tx, key, device.as_str())? {
        tx.delete(Family::User, row);
    }
    Ok(())
}
