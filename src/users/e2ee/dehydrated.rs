//! The dehydrated device (MSC3814): a device without a session that gathers messages until the user logs in again.
//!
//! It is a device like others, with keys and an inbox, and beside it a record that says which it is and holds what a
//! client needs to bring it to life. A user has at most one.

use hearth_storage::{EntityKey, Family, Position, record};
use ruma::{DeviceId, OwnedDeviceId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::device_keys::{self, KeyUpload};
use super::rows::{self, kind};
use super::{lists, one_time};
use crate::change::Change;
use crate::device::{self, DeviceRecord};
use crate::error::{Error, Result};
use crate::keys::{self, field};
use crate::user::User;
use crate::write::Tx;

/// The largest `device_data`: a pickle with its one-time keys takes a few kB.
const DEVICE_DATA_MAX_BYTES: usize = 64 << 10;

/// A user's dehydrated device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DehydratedDevice {
    /// Its id.
    pub device_id: OwnedDeviceId,
    /// What a client brings it to life with; it has an `algorithm`.
    pub device_data: Map<String, Value>,
}

impl User {
    /// Puts a dehydrated device in the place of the one before. The keys must have those of the device.
    pub async fn put_dehydrated_device(
        &self,
        new: DehydratedDevice,
        display_name: Option<String>,
        upload: KeyUpload,
    ) -> Result<()> {
        let id = new.device_id.clone();
        device::check_id(&id)?;
        device::check_name(display_name.as_deref())?;
        if !new.device_data.get("algorithm").is_some_and(Value::is_string) {
            return Err(Error::BadJson("`device_data` has no text `algorithm`"));
        }
        if record::encode(&new).len() > DEVICE_DATA_MAX_BYTES {
            return Err(Error::TooLarge("`device_data` is larger than 64 KiB"));
        }
        one_time::check(&upload)?;
        let identity = upload.device_keys.clone();
        let identity = identity.ok_or(Error::MissingParam("`device_keys` is missing"))?;
        device_keys::check(&self.id, &id, &identity)?;
        one_time::check_signatures(&self.id, &id, &identity, &upload)?;
        let now = self.users.now_ms();
        self.write(|tx| {
            let mut with_keys = self.remove_dehydrated(tx)?;
            if device::load(tx, self.key, &id)?.is_some() {
                return Err(Error::InvalidParam("You are logged in to a device with this id"));
            }
            device::make_room(tx, self)?;
            let device = DeviceRecord {
                created_ts: now,
                display_name,
                ..DeviceRecord::default()
            };
            device::store(tx, self.key, &id, &device);
            let row = rows::device_key(self.key, kind::IDENTITY, id.as_str());
            tx.put(Family::DeviceKey, row, record::encode(&identity));
            one_time::upload(tx, self.key, &id, upload.one_time_keys, upload.fallback_keys)?;
            tx.put(Family::User, at(self.key), record::encode(&new));
            if !with_keys.contains(&Some(id.clone())) {
                with_keys.push(Some(id));
            }
            lists::changed(tx, &self.id, self.key, now, &with_keys)?;
            tx.changed(Change::Devices)
        })
        .await
    }

    /// The user's dehydrated device.
    pub fn dehydrated_device(&self) -> Result<Option<DehydratedDevice>> {
        let value = self.users.log.engine().get(Family::User, &at(self.key))?;
        Ok(value.map(|bytes| record::decode(&bytes)).transpose()?)
    }

    /// Removes the dehydrated device, and gives its id.
    pub async fn delete_dehydrated_device(&self) -> Result<Option<OwnedDeviceId>> {
        self.write(|tx| {
            let id = load(tx, self.key)?.map(|device| device.device_id);
            let with_keys = self.remove_dehydrated(tx)?;
            if !with_keys.is_empty() {
                lists::changed(tx, &self.id, self.key, self.users.now_ms(), &with_keys)?;
            }
            if id.is_some() {
                tx.changed(Change::Devices)?;
            }
            Ok(id)
        })
        .await
    }

    /// The messages to the dehydrated device after a position, oldest first, and where to go on. They stay: a client that
    /// is interrupted begins again.
    pub fn dehydrated_events(
        &self,
        device: &DeviceId,
        since: Position,
        limit: usize,
    ) -> Result<(Vec<Box<RawValue>>, Position)> {
        let found = self.to_device_between(device, since, self.position(), limit)?;
        let reached = found.last().map_or(since, |(last, _)| *last);
        Ok((found.into_iter().map(|(_, event)| event).collect(), reached))
    }

    /// Removes the dehydrated device; names it where others knew keys of it.
    fn remove_dehydrated(&self, tx: &mut Tx<'_>) -> Result<Vec<Option<OwnedDeviceId>>> {
        let Some(old) = load(tx, self.key)? else {
            return Ok(Vec::new());
        };
        let Some(device) = device::load(tx, self.key, &old.device_id)? else {
            tx.delete(Family::User, at(self.key));
            return Ok(Vec::new());
        };
        let had_keys = device::delete(tx, self, &old.device_id, device)?;
        Ok(had_keys.then_some(Some(old.device_id)).into_iter().collect())
    }
}

fn at(key: EntityKey) -> Vec<u8> {
    keys::user(key, field::DEHYDRATED, "")
}

fn load(tx: &Tx<'_>, key: EntityKey) -> Result<Option<DehydratedDevice>> {
    let value = tx.get(Family::User, &at(key))?;
    Ok(value.map(|bytes| record::decode(&bytes)).transpose()?)
}

/// The device is no longer the dehydrated one: it is deleted, or somebody logs in to it.
pub(crate) fn forget(tx: &mut Tx<'_>, key: EntityKey, device: &DeviceId) -> Result<()> {
    if load(tx, key)?.is_some_and(|known| known.device_id == device) {
        tx.delete(Family::User, at(key));
    }
    Ok(())
}
