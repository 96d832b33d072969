//! Pushers (client-server API, "Push Notifications"): where a user's notifications are sent.
//!
//! They stand in the user's entity. A view over all users says who has any, and who else has the same pushkey.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use hearth_cluster::OutboxHandler;
use hearth_storage::{EntityKey, EntityKind, Family, Log, OutboxRow, Position, ShardId, record, slot_of};
use parking_lot::RwLock;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::keys::{self, field, op};
use crate::user::{User, Users};
use crate::web_push::{self, Activation, WEB_PUSH};
use crate::write::{Lanes, Tx};

const VIEW: &str = "pushers";

/// The value of the view's rows: a tag, and nothing more.
const VIEW_TAG: u8 = 2;

/// The longest pushkey, set by the specification.
const PUSHKEY_MAX_BYTES: usize = 512;

/// The longest app id, in characters, set by the specification.
const APP_ID_MAX_CHARS: usize = 64;

/// The largest `data` and the longest name: they go out with every notification.
const DATA_MAX_BYTES: usize = 16 << 10;
const NAME_MAX_BYTES: usize = 512;

/// How many pushers a user may have: each is told of every notification.
const PUSHERS_PER_USER_MAX: usize = 100;

/// Where a push gateway takes notifications, set by the specification.
const GATEWAY_PATH: &str = "/_matrix/push/v1/notify";

/// A pusher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pusher {
    /// What the gateway knows the device by.
    pub pushkey: String,
    /// The application.
    pub app_id: String,
    /// How it is reached: `http` or `webpush`.
    pub kind: String,
    /// The application's name for people.
    pub app_display_name: String,
    /// The device's name for people.
    pub device_display_name: String,
    /// Which set of device-specific rules holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_tag: Option<String>,
    /// The language of notifications.
    pub lang: String,
    /// What the gateway is told as it stands, `url` aside.
    pub data: Map<String, Value>,
    /// The device that set it, with which it goes.
    pub device_id: OwnedDeviceId,
    /// When it was set, in milliseconds since 1970.
    #[serde(default)]
    pub ts: u64,
    /// Whether it is switched off: then it is kept, and told of nothing (MSC3881).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Whether it is told of anything: Web Push waits until the client has shown that it is reached (MSC4174).
    #[serde(default, skip_serializing_if = "Activation::is_none")]
    pub activation: Activation,
}

/// What a request to set a pusher says beside the pusher itself.
#[derive(Clone, Debug, Default)]
pub struct PusherOptions {
    /// Whether other users keep a pusher of the same application and pushkey.
    pub append: bool,
    /// Whether it is switched on, where that is said; else it is (MSC3881).
    pub enabled: Option<bool>,
    /// The device that the client knows it by: that of the pusher as it was listed (MSC3881).
    pub device_id: Option<OwnedDeviceId>,
}

impl PusherOptions {
    /// Whether another device switches a pusher that is there on or off, and does not take it over. Some clients name the
    /// pusher's device with that, others do not.
    fn is_switch_of(&self, known: &Pusher) -> bool {
        match &self.device_id {
            Some(device) => *device == known.device_id,
            None => self.enabled == Some(known.disabled),
        }
    }
}

impl Pusher {
    /// Whether it is a subscription of Web Push, by which the server itself encrypts for the client.
    pub fn is_web_push(&self) -> bool {
        self.kind == WEB_PUSH
    }

    /// The gateway's URL.
    pub fn url(&self) -> &str {
        self.data.get("url").and_then(Value::as_str).unwrap_or_default()
    }

    /// Where a subscription is reached and with which secret: when they change it has to be activated again.
    fn subscription(&self) -> (Option<&Value>, Option<&Value>) {
        (self.data.get("url"), self.data.get("auth"))
    }

    fn check(&self) -> Result<()> {
        if self.pushkey.is_empty() || self.pushkey.len() > PUSHKEY_MAX_BYTES {
            return Err(Error::InvalidParam("A pushkey has 1 to 512 bytes"));
        }
        if self.app_id.is_empty() || self.app_id.chars().count() > APP_ID_MAX_CHARS {
            return Err(Error::InvalidParam("An app_id has 1 to 64 characters"));
        }
        if self.kind != "http" && !self.is_web_push() {
            return Err(Error::InvalidParam(
                "This server has pushers of the kinds http and webpush",
            ));
        }
        let names = [&self.app_display_name, &self.device_display_name, &self.lang];
        let tag = self.profile_tag.as_ref();
        if names
            .into_iter()
            .chain(tag)
            .any(|name| name.len() > NAME_MAX_BYTES)
        {
            return Err(Error::InvalidParam(
                "A name of the pusher is longer than 512 bytes",
            ));
        }
        if Value::Object(self.data.clone()).to_string().len() > DATA_MAX_BYTES {
            return Err(Error::InvalidParam(
                "The data of the pusher is larger than 16 KiB",
            ));
        }
        let url = self.data.get("url").and_then(Value::as_str);
        let url = url.ok_or(Error::MissingParam("A pusher needs data.url"))?;
        match self.is_web_push() {
            true => web_push::check(url, &self.pushkey, self.data.get("auth")),
            false => check_url(url),
        }
    }
}

/// NOTSPEC: http is taken too, for a gateway on the same machine or network.
fn check_url(url: &str) -> Result<()> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.strip_suffix(GATEWAY_PATH));
    match authority.is_some_and(is_authority) {
        true => Ok(()),
        false => Err(Error::InvalidParam(
            "data.url must be an https URL whose path is /_matrix/push/v1/notify",
        )),
    }
}

pub(crate) fn is_authority(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

impl User {
    /// The user's pushers, but for one that cannot be read: whoever reads rows logs that.
    pub fn pushers(&self) -> Result<Vec<Pusher>> {
        let prefix = keys::user(self.key, field::PUSHER, "");
        let end = hearth_storage::prefix_end(&prefix);
        let mut found = Vec::new();
        self.users
            .log
            .engine()
            .scan(Family::User, &prefix, &end, false, &mut |_, value| {
                found.extend(record::decode(value).ok());
                true
            })?;
        Ok(found)
    }

    /// One pusher.
    pub fn pusher(&self, app_id: &str, pushkey: &str) -> Result<Option<Pusher>> {
        let value = self
            .users
            .log
            .engine()
            .get(Family::User, &row(self.key, app_id, pushkey))?;
        Ok(value.as_deref().map(record::decode).transpose()?)
    }

    /// Sets a pusher. Without `append` no other user keeps one of the same application and pushkey. Says whether it is
    /// to be activated before it is told of anything.
    pub async fn set_pusher(&self, mut pusher: Pusher, options: PusherOptions) -> Result<bool> {
        pusher.check()?;
        pusher.ts = self.users.now_ms();
        pusher.disabled = options.enabled == Some(false);
        let (app_id, pushkey) = (pusher.app_id.clone(), pusher.pushkey.clone());
        let awaited = self
            .write(|tx| {
                let all = tx.scan(Family::User, &keys::user(self.key, field::PUSHER, ""))?;
                let row = row(self.key, &pusher.app_id, &pusher.pushkey);
                if all.len() >= PUSHERS_PER_USER_MAX && all.iter().all(|(known, _)| *known != row) {
                    return Err(Error::TooMany("You have too many pushers"));
                }
                // One that cannot be read is replaced.
                let known = tx.get(Family::User, &row)?;
                let known: Option<Pusher> = known.and_then(|known| record::decode(&known).ok());
                if let Some(known) = &known
                    && known.device_id != pusher.device_id
                    && options.is_switch_of(known)
                {
                    pusher.device_id = known.device_id.clone();
                    pusher.ts = known.ts;
                }
                if pusher.is_web_push() {
                    let is_same =
                        |known: &Pusher| known.is_web_push() && known.subscription() == pusher.subscription();
                    let done =
                        known.is_some_and(|known| known.activation == Activation::Done && is_same(&known));
                    pusher.activation = match done {
                        true => Activation::Done,
                        false => web_push::awaited(self.users.random.as_ref(), pusher.ts),
                    };
                }
                tx.put(Family::User, row, record::encode(&pusher));
                tx.outbox(self.pusher_update(&pusher.app_id, &pusher.pushkey, true));
                Ok(matches!(pusher.activation, Activation::Awaited { .. }))
            })
            .await?;
        if !options.append {
            for other in self.users.pushing.with_key(&app_id, &pushkey)? {
                if other != self.id
                    && let Some(other) = self.users.get(&other)?
                {
                    other.delete_pusher(&app_id, &pushkey).await?;
                }
            }
        }
        Ok(awaited)
    }

    /// Deletes a pusher; one that is not there counts as deleted.
    pub async fn delete_pusher(&self, app_id: &str, pushkey: &str) -> Result<()> {
        self.write_anyway(|tx| {
            let row = row(self.key, app_id, pushkey);
            if tx.get(Family::User, &row)?.is_some() {
                tx.delete(Family::User, row);
                tx.outbox(self.pusher_update(app_id, pushkey, false));
            }
            Ok(())
        })
        .await
    }

    fn pusher_update(&self, app_id: &str, pushkey: &str, present: bool) -> OutboxRow {
        let update = PusherUpdate {
            user_id: self.id.clone(),
            app_id: app_id.to_owned(),
            pushkey: pushkey.to_owned(),
            present,
        };
        OutboxRow {
            target_kind: EntityKind::Server,
            target: self.users.settings.server_name.to_string(),
            op: op::PUSHER,
            payload: record::encode(&update),
        }
    }

    /// Deletes the pushers that a device set: all of them where no device is named.
    pub(crate) fn drop_pushers(&self, tx: &mut Tx<'_>, device: Option<&DeviceId>) -> Result<()> {
        for (row, value) in tx.scan(Family::User, &keys::user(self.key, field::PUSHER, ""))? {
            // One that cannot be read must not keep a device from going.
            let Ok(pusher) = record::decode::<Pusher>(&value) else {
                continue;
            };
            if device.is_none_or(|device| pusher.device_id == device) {
                tx.delete(Family::User, row);
                tx.outbox(self.pusher_update(&pusher.app_id, &pusher.pushkey, false));
            }
        }
        Ok(())
    }
}

impl Users {
    /// How many users have pushers.
    pub fn pushing_count(&self) -> usize {
        self.pushing.users.read().len()
    }

    /// The users who have pushers.
    pub fn pushing(&self) -> Vec<OwnedUserId> {
        self.pushing.users.read().iter().cloned().collect()
    }

    /// Calls `listener` with each pusher that is set, when that is durable: its user, application and pushkey. A crash may
    /// have it called again.
    pub fn on_pusher(&self, listener: PusherListener) {
        self.pushing.listeners.write().push(listener);
    }

    /// Whether a user has pushers.
    pub fn is_pushing(&self, user: &UserId) -> bool {
        self.pushing.users.read().contains(user)
    }
}

fn row(key: EntityKey, app_id: &str, pushkey: &str) -> Vec<u8> {
    keys::user(key, field::PUSHER, &format!("{app_id}\0{pushkey}"))
}

/// Who is told of pushers that are set.
pub type PusherListener = Box<dyn Fn(&UserId, &str, &str) + Send + Sync>;

/// A pusher that came or went: the payload of [`op::PUSHER`].
#[derive(Serialize, Deserialize)]
struct PusherUpdate {
    user_id: OwnedUserId,
    app_id: String,
    pushkey: String,
    present: bool,
}

/// Who has pushers: the view, and the users of it in memory, who are asked about for every event.
pub(crate) struct Pushing {
    log: Arc<Log>,
    lanes: Arc<Lanes>,
    users: RwLock<BTreeSet<OwnedUserId>>,
    listeners: RwLock<Vec<PusherListener>>,
}

impl Pushing {
    pub(crate) fn new(log: Arc<Log>, lanes: Arc<Lanes>) -> Self {
        let pushing = Self {
            log,
            lanes,
            users: RwLock::default(),
            listeners: RwLock::default(),
        };
        match pushing.last_parts(&keys::view(VIEW, b"u")) {
            Ok(rows) => {
                let users = rows.iter().filter_map(|row| row.split('\0').next());
                *pushing.users.write() = users.filter_map(|id| OwnedUserId::try_from(id).ok()).collect();
            }
            Err(error) => tracing::error!(%error, "who has pushers could not be read: nobody is pushed to"),
        }
        pushing
    }

    /// The users who have a pusher with this pushkey.
    fn with_key(&self, app_id: &str, pushkey: &str) -> Result<Vec<OwnedUserId>> {
        let prefix = keys::view(VIEW, format!("k{app_id}\0{pushkey}\0").as_bytes());
        let rows = self.last_parts(&prefix)?;
        Ok(rows
            .into_iter()
            .filter_map(|id| OwnedUserId::try_from(id).ok())
            .collect())
    }

    /// What follows a prefix in the keys of its rows.
    fn last_parts(&self, prefix: &[u8]) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let end = hearth_storage::prefix_end(prefix);
        self.log
            .engine()
            .scan(Family::View, prefix, &end, false, &mut |row, _| {
                found.extend(std::str::from_utf8(&row[prefix.len()..]).ok().map(str::to_owned));
                true
            })?;
        Ok(found)
    }
}

#[async_trait]
impl OutboxHandler for Pushing {
    async fn apply(
        &self,
        target: &str,
        payload: &[u8],
        _source: (ShardId, Position, u16),
    ) -> std::result::Result<(), hearth_storage::Error> {
        let update: PusherUpdate = record::decode(payload)?;
        let (user, app, pushkey) = (&update.user_id, &update.app_id, &update.pushkey);
        let rows = [
            keys::view(VIEW, format!("u{user}\0{app}\0{pushkey}").as_bytes()),
            keys::view(VIEW, format!("k{app}\0{pushkey}\0{user}").as_bytes()),
        ];
        let applied = self
            .lanes
            .write_anyway(slot_of(target), |tx| {
                for row in rows {
                    match update.present {
                        true => tx.put(Family::View, row, vec![VIEW_TAG]),
                        false => tx.delete(Family::View, row),
                    }
                }
                Ok(())
            })
            .await;
        applied.map_err(crate::room_list::storage_error)?;
        let left = self
            .last_parts(&keys::view(VIEW, format!("u{user}\0").as_bytes()))
            .map_err(crate::room_list::storage_error)?;
        match left.is_empty() {
            true => self.users.write().remove(user),
            false => self.users.write().insert(user.clone()),
        };
        if update.present {
            for listener in self.listeners.read().iter() {
                listener(user, app, pushkey);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways() {
        for (url, good) in [
            ("https://push.example.org/_matrix/push/v1/notify", true),
            ("http://localhost:5000/_matrix/push/v1/notify", true),
            ("https://[::1]:5000/_matrix/push/v1/notify", true),
            ("https://push.example.org/_matrix/push/v1/other", false),
            ("https:///_matrix/push/v1/notify", false),
            ("https://a/b/_matrix/push/v1/notify", false),
            ("https://user@a/_matrix/push/v1/notify", false),
            ("ftp://a/_matrix/push/v1/notify", false),
            ("", false),
        ] {
            assert_eq!(check_url(url).is_ok(), good, "{url}");
        }
    }
}
