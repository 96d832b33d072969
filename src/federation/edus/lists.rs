//! The device lists and keys of remote users, kept as long as this server shares a room with them: then their server
//! tells of every change (server-server API, "Device Management").

use hearth_rooms::Error;
use hearth_storage::{EntityKey, Family, prefix_end, record};
use ruma::{OwnedDeviceId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::server_rows::{kind, row};
use super::{Edus, Outcome, Refused, user_of};

/// The largest object with the keys of one device or of cross-signing that is kept.
const KEYS_MAX_BYTES: usize = 64 << 10;
/// So many devices of one user are kept.
const DEVICES_MAX: usize = 1_000;

/// What is kept of a user beside the devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct List {
    /// The number of the last change that is in it.
    pub(crate) stream_id: u64,
    /// A change was missed: the list must be fetched again.
    #[serde(default)]
    pub(crate) is_stale: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) master_key: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) self_signing_key: Option<Value>,
}

/// A device of a remote user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) device_id: OwnedDeviceId,
    #[serde(default)]
    pub(crate) keys: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) device_display_name: Option<String>,
}

/// The answer of `GET /_matrix/federation/v1/user/devices/{userId}`.
#[derive(Debug, Deserialize)]
pub(crate) struct WholeList {
    pub(crate) stream_id: u64,
    pub(crate) devices: Vec<Device>,
    #[serde(default)]
    pub(crate) master_key: Option<Value>,
    #[serde(default)]
    pub(crate) self_signing_key: Option<Value>,
}

#[derive(Deserialize)]
struct Update {
    stream_id: u64,
    #[serde(default)]
    prev_id: Vec<u64>,
    #[serde(default)]
    deleted: bool,
    #[serde(flatten)]
    device: Device,
}

impl Edus {
    pub(super) async fn device_list_update(&self, origin: &ServerName, content: &Value) -> Outcome {
        let user = user_of(origin, &content["user_id"])?;
        let update: Update =
            serde_json::from_value(content.clone()).map_err(|_| Refused::Because("it is malformed"))?;
        self.must_be_near(user)?;
        {
            let _turn = self.turn_of(user).await;
            self.apply_update(user, update).await?;
        }
        self.tell_rooms(user).await?;
        Ok(())
    }

    async fn apply_update(&self, user: &UserId, update: Update) -> Result<(), Error> {
        let Some(mut list) = self.list(user)?.filter(|list| !list.is_stale) else {
            return Ok(());
        };
        let is_old = update.stream_id <= list.stream_id;
        if is_old && self.has_device_of(user, &update)? {
            return Ok(());
        }
        // A number that was there already, with something else: the server counts anew, as after a loss of its data.
        let has_gap = is_old || update.prev_id.iter().any(|prev| *prev > list.stream_id);
        let fits = update.device.is_good(user) && (update.deleted || self.devices(user)?.len() < DEVICES_MAX);
        if has_gap || !fits {
            list.is_stale = true;
        } else {
            list.stream_id = update.stream_id;
        }
        self.rows
            .write(user.server_name(), |server, _, record| {
                if !list.is_stale {
                    let at = device_row(server, user, update.device.device_id.as_str());
                    match update.deleted {
                        true => record.batch.delete(Family::RemoteUser, at),
                        false => record
                            .batch
                            .put(Family::RemoteUser, at, record::encode(&update.device)),
                    }
                }
                let at = row(server, kind::LIST, user.as_bytes());
                record.batch.put(Family::RemoteUser, at, record::encode(&list));
            })
            .await
    }

    /// Whether the keys of a device are kept as an update has them, or are gone as it says.
    fn has_device_of(&self, user: &UserId, update: &Update) -> Result<bool, Error> {
        let told = update.device.signed_keys().filter(|_| !update.deleted);
        let mut kept = self.devices(user)?.into_iter();
        let kept = kept.find(|device| device.device_id == update.device.device_id);
        Ok(kept.as_ref().and_then(Device::signed_keys) == told)
    }

    pub(super) async fn signing_key_update(&self, origin: &ServerName, content: &Value) -> Outcome {
        let user = user_of(origin, &content["user_id"])?;
        self.must_be_near(user)?;
        {
            let _turn = self.turn_of(user).await;
            if let Some(mut list) = self.list(user)? {
                let key = |name: &str| content.get(name).cloned().filter(|key| is_key_of(key, user));
                list.master_key = key("master_key").or(list.master_key);
                list.self_signing_key = key("self_signing_key").or(list.self_signing_key);
                self.rows
                    .write(user.server_name(), |server, _, record| {
                        let at = row(server, kind::LIST, user.as_bytes());
                        record.batch.put(Family::RemoteUser, at, record::encode(&list));
                    })
                    .await?;
            }
        }
        self.tell_rooms(user).await?;
        Ok(())
    }

    /// Refuses what is told of a user who is in no room of this server, as far as is known.
    fn must_be_near(&self, user: &UserId) -> Outcome {
        match self.rooms.shares_with_remote(user)? || !self.rooms.partial_rooms_of_remote(user)?.is_empty() {
            true => Ok(()),
            false => Err(Refused::Because("the user shares no room with anybody here")),
        }
    }

    /// Lets the members of a user's rooms know that the devices or keys changed; also of those rooms in which the user may
    /// be, as it is not known yet who is: nobody tells of the change again.
    async fn tell_rooms(&self, user: &UserId) -> Result<(), Error> {
        let mut rooms = self.rooms.partial_rooms_of_remote(user)?;
        for room in self.rooms.rooms_of_remote(user)? {
            rooms.extend(self.rooms.get(&room)?);
        }
        for room in rooms {
            room.devices_changed(user).await?;
        }
        Ok(())
    }

    /// The list that is kept of a user.
    pub(crate) fn list(&self, user: &UserId) -> Result<Option<List>, Error> {
        let Some(server) = self.rows.key(user.server_name())? else {
            return Ok(None);
        };
        let at = row(server, kind::LIST, user.as_bytes());
        let value = self.rows.engine().get(Family::RemoteUser, &at)?;
        Ok(value.as_deref().map(record::decode).transpose()?)
    }

    /// The devices that are kept of a user.
    pub(crate) fn devices(&self, user: &UserId) -> Result<Vec<Device>, Error> {
        let mut found = Vec::new();
        let Some(server) = self.rows.key(user.server_name())? else {
            return Ok(found);
        };
        let start = device_row(server, user, "");
        let end = prefix_end(&start);
        let engine = self.rows.engine();
        engine.scan(Family::RemoteUser, &start, &end, false, &mut |_, value| {
            found.extend(record::decode::<Device>(value).ok());
            true
        })?;
        Ok(found)
    }

    /// Keeps a list as it was fetched. The caller has the user's turn.
    pub(crate) async fn keep_list(&self, user: &UserId, whole: &WholeList) -> Result<(), Error> {
        let key = |key: &Option<Value>| key.clone().filter(|key| is_key_of(key, user));
        let list = List {
            stream_id: whole.stream_id,
            is_stale: false,
            master_key: key(&whole.master_key),
            self_signing_key: key(&whole.self_signing_key),
        };
        self.rows
            .write(user.server_name(), |server, _, record| {
                let batch = &mut record.batch;
                let start = device_row(server, user, "");
                batch.delete_range(Family::RemoteUser, start.clone(), prefix_end(&start));
                let good = whole.devices.iter().filter(|device| device.is_good(user));
                for device in good.take(DEVICES_MAX) {
                    let at = device_row(server, user, device.device_id.as_str());
                    batch.put(Family::RemoteUser, at, record::encode(device));
                }
                let at = row(server, kind::LIST, user.as_bytes());
                batch.put(Family::RemoteUser, at, record::encode(&list));
            })
            .await
    }

    /// Forgets a list: nobody tells of its changes any more.
    pub(super) async fn forget_list(&self, user: &UserId) -> Result<(), Error> {
        let _turn = self.turn_of(user).await;
        if self.list(user)?.is_none() {
            return Ok(());
        }
        self.rows
            .write(user.server_name(), |server, _, record| {
                let start = device_row(server, user, "");
                record
                    .batch
                    .delete_range(Family::RemoteUser, start.clone(), prefix_end(&start));
                let at = row(server, kind::LIST, user.as_bytes());
                record.batch.delete(Family::RemoteUser, at);
            })
            .await
    }
}

impl Device {
    /// Its keys without what its server adds to them.
    fn signed_keys(&self) -> Option<Map<String, Value>> {
        let mut keys = self.keys.clone()?;
        keys.remove("unsigned");
        Some(keys)
    }

    /// Whether it may be kept: its keys are the user's, and not too large.
    pub(crate) fn is_good(&self, user: &UserId) -> bool {
        let id = self.device_id.as_str();
        let id_fits = !id.is_empty() && id.len() <= hearth_core::limits::ID_MAX_BYTES && !id.contains('\0');
        id_fits
            && self.keys.as_ref().is_none_or(|keys| {
                let text = |name: &str| keys.get(name).and_then(Value::as_str);
                text("user_id") == Some(user.as_str())
                    && text("device_id") == Some(id)
                    && record::encode(keys).len() <= KEYS_MAX_BYTES
            })
    }
}

/// Whether a cross-signing key is a user's, and not too large.
pub(crate) fn is_key_of(key: &Value, user: &UserId) -> bool {
    key["user_id"] == user.as_str() && key.to_string().len() <= KEYS_MAX_BYTES
}

fn device_row(server: EntityKey, user: &UserId, device: &str) -> Vec<u8> {
    let key = [user.as_bytes(), &[0], device.as_bytes()].concat();
    row(server, kind::DEVICE, &key)
}
