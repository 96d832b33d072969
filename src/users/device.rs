//! Devices, and when they were last seen.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use hearth_core::tasks::{Rhythm, repeat};
use hearth_core::{Shutdown, limits};
use hearth_storage::{EntityKey, Family, record};
use ruma::{DeviceId, OwnedDeviceId};
use serde::{Deserialize, Serialize};

use crate::account::account_of;
use crate::change::Change;
use crate::cross_signing;
use crate::data;
use crate::e2ee::{dehydrated, device_keys, lists};
use crate::error::{Error, Result};
use crate::keys;
use crate::session::{Session, drop_tokens};
use crate::token::Hash;
use crate::user::{User, Users};
use crate::write::Tx;

/// A device of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub device_id: OwnedDeviceId,
    /// The name that the user sees.
    pub display_name: Option<String>,
    /// The address it was last seen at.
    pub last_seen_ip: Option<String>,
    /// When it was last seen.
    pub last_seen_ts: Option<u64>,
    /// What the client calls itself.
    pub user_agent: Option<String>,
}

/// What is stored of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DeviceRecord {
    pub created_ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Hash>,
    /// The tokens before a refresh, until the new ones are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_access: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_refresh: Option<Hash>,
}

impl DeviceRecord {
    /// Takes out all tokens of the device.
    pub(crate) fn take_tokens(&mut self) -> [Option<Hash>; 4] {
        [
            self.access.take(),
            self.refresh.take(),
            self.old_access.take(),
            self.old_refresh.take(),
        ]
    }

    fn last_used(&self) -> u64 {
        self.last_seen_ts.unwrap_or(self.created_ts)
    }
}

/// How often the times at which devices were seen are written down.
const LAST_SEEN_FLUSH: Duration = Duration::from_secs(5 * 60);

struct Seen {
    user: User,
    device_id: OwnedDeviceId,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    ts: u64,
}

/// When sessions were used since the last flush. It holds one entry for each session in use.
#[derive(Default)]
pub(crate) struct LastSeen(DashMap<Hash, Seen>);

impl LastSeen {
    pub(crate) fn note(&self, session: &Session, ip: Option<IpAddr>, user_agent: Option<&str>, ts: u64) {
        let mut seen = self.0.entry(session.token).or_insert_with(|| Seen {
            user: session.user.clone(),
            device_id: session.device_id.clone(),
            ip: None,
            user_agent: None,
            ts,
        });
        seen.ts = ts;
        seen.ip = ip;
        if seen.user_agent.as_deref() != user_agent {
            seen.user_agent =
                user_agent.map(|text| text.chars().take(limits::DEVICE_NAME_MAX_BYTES / 4).collect());
        }
    }

    fn get(&self, device: &DeviceRecord, into: &mut Device) {
        let Some(seen) = device.access.and_then(|hash| self.0.get(&hash)) else {
            return;
        };
        into.last_seen_ts = Some(seen.ts);
        into.last_seen_ip = seen.ip.map(|ip| ip.to_string());
        into.user_agent.clone_from(&seen.user_agent);
    }
}

impl Users {
    pub(crate) fn start_last_seen(self: &Arc<Self>, shutdown: &Shutdown) {
        let rhythm = Rhythm::every(LAST_SEEN_FLUSH);
        repeat(
            "last seen",
            rhythm,
            shutdown,
            self,
            |users: Arc<Self>| async move {
                if let Err(error) = users.flush_last_seen().await {
                    tracing::warn!(%error, "the times at which devices were seen could not be stored");
                }
            },
        );
    }

    /// Writes down when devices were last seen: one batch for each user.
    pub async fn flush_last_seen(&self) -> Result<()> {
        let hashes: Vec<Hash> = self.last_seen.0.iter().map(|entry| *entry.key()).collect();
        let mut by_user: BTreeMap<EntityKey, Vec<Seen>> = BTreeMap::new();
        for hash in hashes {
            if let Some((_, seen)) = self.last_seen.0.remove(&hash) {
                by_user.entry(seen.user.key).or_default().push(seen);
            }
        }
        for (key, all) in by_user {
            let Some(user) = all.first().map(|seen| seen.user.clone()) else {
                continue;
            };
            user.write(|tx| {
                for seen in all {
                    let Some(mut device) = load(tx, key, &seen.device_id)? else {
                        continue;
                    };
                    device.last_seen_ts = Some(seen.ts);
                    device.last_seen_ip = seen.ip.map(|ip| ip.to_string());
                    device.user_agent = seen.user_agent;
                    store(tx, key, &seen.device_id, &device);
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

impl User {
    /// All devices, by id.
    pub fn devices(&self) -> Result<Vec<Device>> {
        let mut found = Vec::new();
        let mut failed = None;
        let prefix = self.key.to_bytes();
        let end = hearth_storage::prefix_end(&prefix);
        self.users
            .log
            .engine()
            .scan(Family::UserDevice, &prefix, &end, false, &mut |row, value| {
                match (device_id_of(row), record::decode(value)) {
                    (Some(id), Ok(device)) => found.push(self.device_view(id, &device)),
                    (_, Err(error)) => failed = Some(error),
                    (None, _) => {}
                }
                failed.is_none()
            })?;
        failed.map_or(Ok(found), |error| Err(error.into()))
    }

    /// One device.
    pub fn device(&self, id: &DeviceId) -> Result<Option<Device>> {
        let value = self
            .users
            .log
            .engine()
            .get(Family::UserDevice, &keys::device(self.key, id.as_str()))?;
        let device: Option<DeviceRecord> = value.as_deref().map(record::decode).transpose()?;
        Ok(device.map(|device| self.device_view(id.to_owned(), &device)))
    }

    /// Names a device, or takes its name away.
    pub async fn rename_device(&self, id: &DeviceId, display_name: Option<&str>) -> Result<()> {
        check_name(display_name)?;
        let now = self.users.now_ms();
        self.write(|tx| {
            let mut device = load(tx, self.key, id)?.ok_or(Error::NotFound("Device"))?;
            if device.display_name.as_deref() == display_name {
                return Ok(());
            }
            device.display_name = display_name.map(str::to_owned);
            store(tx, self.key, id, &device);
            let change = [Some(id.to_owned())];
            match device_keys::has_keys(tx, self.key, id)? {
                true => lists::changed(tx, &self.id, self.key, now, &change)?,
                false => lists::changed_without_keys(tx, self.key, &change)?,
            }
            tx.changed(Change::Devices)
        })
        .await
    }

    /// Makes a device without a session, or names one that is there; says whether it is new. For application services,
    /// who act as a device without logging in.
    pub async fn put_device(&self, id: &DeviceId, display_name: Option<&str>) -> Result<bool> {
        check_id(id)?;
        check_name(display_name)?;
        let made = self
            .write(|tx| {
                if account_of(tx, self.key)?.deactivated {
                    return Err(Error::Deactivated);
                }
                if load(tx, self.key, id)?.is_some() {
                    return Ok(false);
                }
                let device = new_record(tx, self, id, display_name.map(str::to_owned))?;
                store(tx, self.key, id, &device);
                dehydrated::forget(tx, self.key, id)?;
                tx.changed(Change::Devices)?;
                Ok(true)
            })
            .await?;
        if !made && display_name.is_some() {
            self.rename_device(id, display_name).await?;
        }
        Ok(made)
    }

    /// Deletes devices and ends their sessions; gives back those that existed.
    pub async fn delete_devices(&self, ids: &[OwnedDeviceId]) -> Result<Vec<OwnedDeviceId>> {
        self.write_anyway(|tx| {
            let mut deleted = Deleted::default();
            for id in ids {
                if let Some(device) = load(tx, self.key, id)? {
                    deleted.note(id.clone(), delete(tx, self, id, device)?);
                }
            }
            self.devices_deleted(tx, deleted)
        })
        .await
    }

    /// Tells of deleted devices, and gives their ids.
    fn devices_deleted(&self, tx: &mut Tx<'_>, deleted: Deleted) -> Result<Vec<OwnedDeviceId>> {
        if !deleted.with_keys.is_empty() {
            lists::changed(tx, &self.id, self.key, self.users.now_ms(), &deleted.with_keys)?;
        }
        if !deleted.without_keys.is_empty() {
            lists::changed_without_keys(tx, self.key, &deleted.without_keys)?;
        }
        let all: Vec<_> = deleted
            .with_keys
            .into_iter()
            .chain(deleted.without_keys)
            .flatten()
            .collect();
        if !all.is_empty() {
            tx.changed(Change::Devices)?;
        }
        Ok(all)
    }

    fn device_view(&self, device_id: OwnedDeviceId, device: &DeviceRecord) -> Device {
        let mut view = Device {
            device_id,
            display_name: device.display_name.clone(),
            last_seen_ip: device.last_seen_ip.clone(),
            last_seen_ts: device.last_seen_ts,
            user_agent: device.user_agent.clone(),
        };
        self.users.last_seen.get(device, &mut view);
        view
    }
}

/// Devices that were deleted in one write, as changes of the device list.
#[derive(Default)]
struct Deleted {
    with_keys: Vec<Option<OwnedDeviceId>>,
    without_keys: Vec<Option<OwnedDeviceId>>,
}

impl Deleted {
    fn note(&mut self, id: OwnedDeviceId, had_keys: bool) {
        match had_keys {
            true => self.with_keys.push(Some(id)),
            false => self.without_keys.push(Some(id)),
        }
    }
}

pub(crate) fn load(tx: &Tx<'_>, key: EntityKey, id: &DeviceId) -> Result<Option<DeviceRecord>> {
    let value = tx.get(Family::UserDevice, &keys::device(key, id.as_str()))?;
    Ok(value.as_deref().map(record::decode).transpose()?)
}

pub(crate) fn store(tx: &mut Tx<'_>, key: EntityKey, id: &DeviceId, device: &DeviceRecord) {
    tx.put(
        Family::UserDevice,
        keys::device(key, id.as_str()),
        record::encode(device),
    );
}

/// Deletes a device with all it left here; says whether others knew keys of it.
pub(crate) fn delete(tx: &mut Tx<'_>, user: &User, id: &DeviceId, mut device: DeviceRecord) -> Result<bool> {
    let key = user.key;
    user.drop_pushers(tx, Some(id))?;
    data::drop_of_device(tx, key, id)?;
    drop_tokens(tx, key.slot, device.take_tokens());
    tx.delete(Family::UserDevice, keys::device(key, id.as_str()));
    let had_keys = device_keys::has_keys(tx, key, id)?;
    device_keys::remove_device(tx, key, id)?;
    dehydrated::forget(tx, key, id)?;
    crate::connections::remove_device(tx, key, id)?;
    crate::token_bases::remove_device(tx, key, id)?;
    Ok(had_keys)
}

/// Deletes all devices but one.
pub(crate) fn delete_all(
    tx: &mut Tx<'_>,
    user: &User,
    keep: Option<&DeviceId>,
) -> Result<Vec<OwnedDeviceId>> {
    let key = user.key;
    let mut deleted = Deleted::default();
    for (row, value) in tx.scan(Family::UserDevice, &key.to_bytes())? {
        let Some(id) = device_id_of(&row).filter(|id| Some(&**id) != keep) else {
            continue;
        };
        let had_keys = delete(tx, user, &id, record::decode(&value)?)?;
        deleted.note(id, had_keys);
    }
    user.devices_deleted(tx, deleted)
}

/// The record of a device that is new.
pub(crate) fn new_record(
    tx: &mut Tx<'_>,
    user: &User,
    id: &DeviceId,
    display_name: Option<String>,
) -> Result<DeviceRecord> {
    // Signatures by the two could not be told apart.
    if cross_signing::is_key_id(tx, user.key, id.as_str())? {
        return Err(Error::Forbidden(
            "The device id is the id of one of your cross-signing keys",
        ));
    }
    make_room(tx, user)?;
    lists::changed_without_keys(tx, user.key, &[Some(id.to_owned())])?;
    Ok(DeviceRecord {
        created_ts: user.users.now_ms(),
        display_name,
        ..DeviceRecord::default()
    })
}

/// Deletes the device that was not used for longest where a new one would exceed the limit: a program that logs in
/// at every start must not lock its user out.
pub(crate) fn make_room(tx: &mut Tx<'_>, user: &User) -> Result<()> {
    let key = user.key;
    let rows = tx.scan(Family::UserDevice, &key.to_bytes())?;
    if rows.len() < limits::DEVICES_PER_USER_MAX {
        return Ok(());
    }
    let mut oldest: Option<(OwnedDeviceId, DeviceRecord)> = None;
    for (row, value) in rows {
        let (Some(id), device) = (device_id_of(&row), record::decode::<DeviceRecord>(&value)?) else {
            continue;
        };
        if oldest
            .as_ref()
            .is_none_or(|(_, other)| device.last_used() < other.last_used())
        {
            oldest = Some((id, device));
        }
    }
    if let Some((id, device)) = oldest {
        let had_keys = delete(tx, user, &id, device)?;
        let mut deleted = Deleted::default();
        deleted.note(id, had_keys);
        user.devices_deleted(tx, deleted)?;
    }
    Ok(())
}

/// Refuses device ids that cannot be keys.
pub(crate) fn check_id(id: &DeviceId) -> Result<()> {
    if id.as_str().is_empty() || id.as_str().len() > limits::ID_MAX_BYTES {
        return Err(Error::InvalidParam("A device id has 1 to 255 bytes"));
    }
    Ok(())
}

/// Refuses device names that are too long.
pub(crate) fn check_name(name: Option<&str>) -> Result<()> {
    match name {
        Some(name) if name.len() > limits::DEVICE_NAME_MAX_BYTES => {
            Err(Error::TooLarge("The device name is too long"))
        }
        _ => Ok(()),
    }
}

fn device_id_of(row: &[u8]) -> Option<OwnedDeviceId> {
    std::str::from_utf8(row.get(EntityKey::LEN..)?)
        .ok()
        .map(OwnedDeviceId::from)
}
