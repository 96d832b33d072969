//! The identity keys of devices: upload, and what others are shown.

use std::collections::BTreeMap;

use hearth_storage::{EntityKey, Family, record};
use ruma::{DeviceId, OwnedDeviceId, UserId};
use serde_json::{Map, Value, json};

use super::one_time::{self, KeyCounts};
use super::rows::{self, kind};
use super::{lists, to_device};
use crate::device;
use crate::error::{Error, Result};
use crate::user::User;
use crate::write::Tx;

/// The largest object with the keys of one device: others fetch it again and again.
const DEVICE_KEYS_MAX_BYTES: usize = 16 << 10;

/// What a device uploads.
#[derive(Clone, Debug, Default)]
pub struct KeyUpload {
    /// Its identity keys.
    pub device_keys: Option<Map<String, Value>>,
    /// One-time keys by id (`algorithm:name`).
    pub one_time_keys: BTreeMap<String, Value>,
    /// Fallback keys by id.
    pub fallback_keys: BTreeMap<String, Value>,
}

/// The identity keys of a device, as the server shows them.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceKeys {
    /// The device.
    pub device_id: OwnedDeviceId,
    /// The object as uploaded, with the signatures that were added to it.
    pub keys: Map<String, Value>,
}

impl User {
    /// Stores what a device uploads, and gives how many one-time keys it has now.
    pub async fn upload_keys(&self, device_id: &DeviceId, upload: KeyUpload) -> Result<KeyCounts> {
        if let Some(keys) = &upload.device_keys {
            check(&self.id, device_id, keys)?;
        }
        one_time::check(&upload)?;
        let row = rows::device_key(self.key, kind::IDENTITY, device_id.as_str());
        let stored = match &upload.device_keys {
            Some(_) => None,
            None => identity_of(self.users.log.engine().get(Family::DeviceKey, &row)?)?,
        };
        if let Some(identity) = upload.device_keys.as_ref().or(stored.as_ref()) {
            one_time::check_signatures(&self.id, device_id, identity, &upload)?;
        }
        let now = self.users.now_ms();
        self.write(|tx| {
            let device = device::load(tx, self.key, device_id)?;
            device.ok_or(Error::NotFound("Device"))?;
            let before = identity_of(tx.get(Family::DeviceKey, &row)?)?;
            if let Some(keys) = upload.device_keys
                && before.as_ref() != Some(&keys)
            {
                if before.is_some_and(|before| before.get("keys") != keys.get("keys")) {
                    // The device was set up anew under its id: of its older keys it has no secrets any more.
                    one_time::remove(tx, self.key, device_id)?;
                }
                tx.put(Family::DeviceKey, row, record::encode(&keys));
                lists::changed(tx, &self.id, self.key, now, &[Some(device_id.to_owned())])?;
            }
            one_time::upload(
                tx,
                self.key,
                device_id,
                upload.one_time_keys,
                upload.fallback_keys,
            )
        })
        .await
    }

    /// Whether a device has identity keys: without them nobody can encrypt for it.
    pub fn has_device_keys(&self, device: &DeviceId) -> Result<bool> {
        let row = rows::device_key(self.key, kind::IDENTITY, device.as_str());
        Ok(self.users.log.engine().get(Family::DeviceKey, &row)?.is_some())
    }

    /// The identity keys of the named devices, or of all.
    pub fn device_keys(&self, devices: &[OwnedDeviceId]) -> Result<Vec<DeviceKeys>> {
        let engine = self.users.log.engine();
        let mut found = Vec::new();
        if !devices.is_empty() {
            for device in devices {
                let row = rows::device_key(self.key, kind::IDENTITY, device.as_str());
                if let Some(value) = engine.get(Family::DeviceKey, &row)? {
                    found.push((device.clone(), value));
                }
            }
        } else {
            let prefix = rows::device_key(self.key, kind::IDENTITY, "");
            let end = hearth_storage::prefix_end(&prefix);
            engine.scan(Family::DeviceKey, &prefix, &end, false, &mut |row, value| {
                if let Ok(id) = std::str::from_utf8(&row[prefix.len()..]) {
                    found.push((OwnedDeviceId::from(id), value.to_vec()));
                }
                true
            })?;
        }
        let names = found.len() > 1;
        let names: BTreeMap<_, _> = if names {
            let devices = self.devices()?.into_iter();
            devices
                .map(|device| (device.device_id, device.display_name))
                .collect()
        } else {
            BTreeMap::new()
        };
        let mut out = Vec::with_capacity(found.len());
        for (device_id, value) in found {
            let mut keys: Map<String, Value> = record::decode(&value)?;
            self.add_signatures_on(&self.id, device_id.as_str(), &mut keys)?;
            let name = match names.get(&device_id) {
                Some(name) => name.clone(),
                None => self.device(&device_id)?.and_then(|device| device.display_name),
            };
            if let Some(name) = name {
                keys.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
            }
            out.push(DeviceKeys { device_id, keys });
        }
        Ok(out)
    }
}

/// Identity keys as they are stored.
fn identity_of(value: Option<Vec<u8>>) -> Result<Option<Map<String, Value>>> {
    Ok(value.as_deref().map(record::decode).transpose()?)
}

/// Whether a device has identity keys: only then do others care for it.
pub(crate) fn has_keys(tx: &Tx<'_>, key: EntityKey, device: &DeviceId) -> Result<bool> {
    let row = rows::device_key(key, kind::IDENTITY, device.as_str());
    Ok(tx.get(Family::DeviceKey, &row)?.is_some())
}

/// Removes everything that a device left here: its keys and its inbox.
pub(crate) fn remove_device(tx: &mut Tx<'_>, key: EntityKey, device: &DeviceId) -> Result<()> {
    for kind in [kind::IDENTITY, kind::WAITING] {
        tx.delete(Family::DeviceKey, rows::device_key(key, kind, device.as_str()));
    }
    one_time::remove(tx, key, device)?;
    for row in tx.first_keys(
        Family::ToDevice,
        &rows::of_device(key, device.as_str()),
        usize::MAX,
    )? {
        tx.delete(Family::ToDevice, row);
    }
    to_device::forget_sent(tx, key, device)
}

/// A public key among identity keys.
pub(super) fn signing_key(identity: &Map<String, Value>, key_id: &str) -> Option<[u8; 32]> {
    let public = identity.get("keys")?.get(key_id)?.as_str()?;
    hearth_events::base64_decode(public)?.try_into().ok()
}

/// Refuses identity keys that are not of this device, or that it has not signed with them.
pub(super) fn check(user: &UserId, device: &DeviceId, keys: &Map<String, Value>) -> Result<()> {
    for (name, is_right) in [
        ("algorithms", keys.get("algorithms").is_some_and(Value::is_array)),
        ("keys", keys.get("keys").is_some_and(Value::is_object)),
        ("signatures", keys.get("signatures").is_some_and(Value::is_object)),
    ] {
        if !is_right {
            let sentence = match name {
                "algorithms" => "`device_keys` has no list `algorithms`",
                "keys" => "`device_keys` has no object `keys`",
                _ => "`device_keys` has no object `signatures`",
            };
            return Err(Error::BadJson(sentence));
        }
    }
    let text = |name: &str| keys.get(name).and_then(Value::as_str);
    if text("user_id") != Some(user.as_str()) {
        return Err(Error::InvalidParam("`device_keys` names another user"));
    }
    if text("device_id") != Some(device.as_str()) {
        return Err(Error::InvalidParam("`device_keys` names another device"));
    }
    if record::encode(keys).len() > DEVICE_KEYS_MAX_BYTES {
        return Err(Error::TooLarge("The keys of a device are larger than 16 KiB"));
    }
    let key_id = format!("ed25519:{device}");
    let signed = keys
        .get("signatures")
        .and_then(|all| all.get(user.as_str())?.get(&key_id));
    if signed.is_none() {
        // Other clients do not trust it, but that is theirs to say.
        return Ok(());
    }
    let public = signing_key(keys, &key_id).ok_or(Error::InvalidParam(
        "`device_keys` is signed with a key that it does not hold",
    ))?;
    hearth_events::verify_json_of(keys, user.as_str(), &key_id, &public).map_err(|error| {
        let sentence = format!("The device's signature on `device_keys` does not hold: {error}");
        Error::InvalidSignature(sentence)
    })
}
