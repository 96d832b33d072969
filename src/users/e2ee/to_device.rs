//! Messages to devices: sent once for each transaction, kept until the sync token that carried them comes back.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use hearth_cluster::OutboxHandler;
use hearth_storage::{EntityKey, EntityKind, Family, OutboxRow, Position, ShardId, record};
use ruma::{DeviceId, OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::rows::{self, kind};
use crate::change::Change;
use crate::error::{Error, Result};
use crate::keys::{self, op};
use crate::room_list::storage_error;
use crate::user::{User, Users};
use crate::write::Tx;

/// The tag of a mark, and of a message as it was stored before its time was.
const TAG: u8 = 2;
/// The tag of a message: then come the time at which it came, eight bytes, and the event.
const TAG_TIMED: u8 = 3;
/// The most messages that wait for a device; then a tenth of them, the oldest, goes.
const WAITING_MAX: u64 = 10_000;
/// That tenth.
const GOES_AT_ONCE: u64 = WAITING_MAX / 10;
/// So many bytes they have together, as they are stored: what so many keys of rooms take, and some more. Then a tenth of these
/// goes, or as much of it as so many messages have. Whoever sends large ones fills a device that never comes with no more.
const WAITING_MAX_BYTES: u64 = 16 << 20;
/// So long a message waits for a device that does not come. The keys in older ones are in the backup, if anywhere.
const WAITING_MAX_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// Messages by user and device; the device `*` is all devices.
pub type ToDeviceMessages = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;

/// The messages of one sender and type to one user's devices: the payload of [`op::TO_DEVICE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToDeviceBatch {
    /// Who sent them.
    pub sender: OwnedUserId,
    /// Their type.
    pub kind: String,
    /// The contents by device.
    pub messages: BTreeMap<String, Box<RawValue>>,
}

impl ToDeviceBatch {
    /// The outbox row that delivers this to a local user.
    pub fn row(&self, user: &UserId) -> OutboxRow {
        OutboxRow {
            target_kind: EntityKind::User,
            target: user.to_string(),
            op: op::TO_DEVICE,
            payload: record::encode(self),
        }
    }
}

/// The messages of one transaction to users of another server: the payload of [`op::REMOTE_TO_DEVICE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoteToDevice {
    /// Who sent them.
    pub sender: OwnedUserId,
    /// Their type.
    pub kind: String,
    /// Names them for good, at most 32 characters.
    pub message_id: String,
    /// The contents by user and device.
    pub messages: ToDeviceMessages,
}

/// About so large is what is sent to a server as one: many fit into a transaction.
const REMOTE_MAX_BYTES: usize = 64 << 10;

impl RemoteToDevice {
    fn row(&self, server: &ServerName) -> OutboxRow {
        OutboxRow {
            target_kind: EntityKind::Destination,
            target: server.to_string(),
            op: op::REMOTE_TO_DEVICE,
            payload: record::encode(self),
        }
    }
}

/// Divides messages by server and size.
fn by_server(messages: ToDeviceMessages) -> BTreeMap<OwnedServerName, Vec<ToDeviceMessages>> {
    let mut servers: BTreeMap<OwnedServerName, Vec<ToDeviceMessages>> = BTreeMap::new();
    // How large the last part of each is.
    let mut sizes: BTreeMap<OwnedServerName, usize> = BTreeMap::new();
    for (user, devices) in messages {
        for (device, content) in devices {
            let server = user.server_name().to_owned();
            let bytes = sizes.entry(server.clone()).or_default();
            let parts = servers.entry(server).or_default();
            let size = content.get().len() + device.len() + user.as_str().len();
            if parts.is_empty() || *bytes + size > REMOTE_MAX_BYTES {
                parts.push(ToDeviceMessages::new());
                *bytes = 0;
            }
            *bytes += size;
            if let Some(part) = parts.last_mut() {
                part.entry(user.clone()).or_default().insert(device, content);
            }
        }
    }
    servers
}

impl User {
    /// Sends messages to devices, once for each transaction of the device. Returns when every local inbox has them, and
    /// what waits for other servers is durable.
    pub async fn send_to_device(
        &self,
        device: &DeviceId,
        kind: &str,
        txn: &str,
        messages: ToDeviceMessages,
    ) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(kind.len() as u64).to_be_bytes());
        hasher.update(kind.as_bytes());
        hasher.update(txn.as_bytes());
        let row = rows::sent(self.key, device.as_str(), &hasher.finalize().as_bytes()[..16]);
        let now = self.users.now_ms();
        self.write(|tx| {
            if tx.get(Family::ToDeviceMark, &row)?.is_some() {
                return Ok(());
            }
            tx.put(Family::ToDeviceMark, row, time_mark(now));
            let (local, remote): (ToDeviceMessages, ToDeviceMessages) = messages
                .into_iter()
                .partition(|(user, _)| self.users.is_local(user));
            for (user, messages) in local {
                let batch = ToDeviceBatch {
                    sender: self.id.clone(),
                    kind: kind.to_owned(),
                    messages,
                };
                tx.outbox(batch.row(&user));
            }
            // The row of the mark and the position name the transaction: device and transaction ids may be used again.
            hasher.update(self.id.as_bytes());
            hasher.update(device.as_bytes());
            hasher.update(&tx.position().to_be_bytes());
            for (server, parts) in by_server(remote) {
                hasher.update(server.as_bytes());
                for messages in parts {
                    hasher.update(b"next");
                    let batch = RemoteToDevice {
                        sender: self.id.clone(),
                        kind: kind.to_owned(),
                        message_id: hasher.finalize().to_hex()[..32].to_owned(),
                        messages,
                    };
                    tx.outbox(batch.row(&server));
                }
            }
            Ok(())
        })
        .await
    }

    /// The messages to a device that came after `since` up to and including `until`, oldest first, with the position
    /// of each. A batch is read whole; after `limit` messages no other one is begun.
    pub fn to_device_between(
        &self,
        device: &DeviceId,
        since: Position,
        until: Position,
        limit: usize,
    ) -> Result<Vec<(Position, Box<RawValue>)>> {
        let mut found: Vec<(Position, Box<RawValue>)> = Vec::new();
        if since >= until || !self.has_messages(device)? {
            return Ok(found);
        }
        let start = rows::to_device(self.key, device.as_str(), since.saturating_add(1), 0);
        let end = rows::to_device(self.key, device.as_str(), until.saturating_add(1), 0);
        self.users
            .log
            .engine()
            .scan(Family::ToDevice, &start, &end, false, &mut |row, value| {
                let position = position_of(row);
                if found.len() >= limit && found.last().is_some_and(|(last, _)| *last != position) {
                    return false;
                }
                let event = event_of(value).and_then(|json| serde_json::from_slice(json).ok());
                found.extend(event.map(|event| (position, event)));
                true
            })?;
        Ok(found)
    }

    /// Whether messages wait for a device: most syncs find none, and need no scan to learn it.
    fn has_messages(&self, device: &DeviceId) -> Result<bool> {
        let row = rows::device_key(self.key, kind::WAITING, device.as_str());
        Ok(self.users.log.engine().get(Family::DeviceKey, &row)?.is_some())
    }

    /// The device has got everything up to a position: lets go of it.
    pub async fn acknowledge_to_device(&self, device: &DeviceId, until: Position) -> Result<()> {
        if !self.has_messages(device)? {
            return Ok(());
        }
        let start = rows::to_device(self.key, device.as_str(), 0, 0);
        let end = rows::to_device(self.key, device.as_str(), until.saturating_add(1), 0);
        let mut got = Vec::new();
        self.users
            .log
            .engine()
            .scan(Family::ToDevice, &start, &end, false, &mut |row, _| {
                got.push(row.to_vec());
                true
            })?;
        if got.is_empty() {
            return Ok(());
        }
        self.write_anyway(|tx| {
            let mut waiting = waiting(tx, self.key, device.as_str())?;
            for row in got {
                if let Some(message) = tx.get(Family::ToDevice, &row)? {
                    tx.delete(Family::ToDevice, row);
                    waiting.take(&message);
                }
            }
            put_waiting(tx, self.key, device.as_str(), waiting);
            Ok(())
        })
        .await
    }
}

fn position_of(row: &[u8]) -> Position {
    let at = row
        .len()
        .checked_sub(10)
        .and_then(|start| row.get(start..start + 8));
    at.and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

/// A time, as marks hold it.
fn time_mark(ms: u64) -> Vec<u8> {
    [&[TAG], ms.to_be_bytes().as_slice()].concat()
}

/// The event of a stored message.
pub(super) fn event_of(value: &[u8]) -> Option<&[u8]> {
    match value.split_first()? {
        (&TAG, event) => Some(event),
        (&TAG_TIMED, rest) => rest.get(8..),
        _ => None,
    }
}

/// When a stored message came; 0 where that was not stored.
pub(super) fn came_at(value: &[u8]) -> u64 {
    let timed = value.split_first().filter(|(tag, _)| **tag == TAG_TIMED);
    let ms = timed.and_then(|(_, rest)| rest.first_chunk());
    ms.map_or(0, |ms| u64::from_be_bytes(*ms))
}

/// What waits for a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waiting {
    count: u64,
    bytes: u64,
}

/// As it is stored: with the bytes, or as it was before they were counted.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredWaiting {
    Both(u64, u64),
    Count(u64),
}

impl Waiting {
    fn add(&mut self, message: &[u8]) {
        self.count += 1;
        self.bytes += message.len() as u64;
    }

    /// What was stored before bytes were counted may be larger than what is known to wait.
    fn take(&mut self, message: &[u8]) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.len() as u64);
    }
}

fn waiting(tx: &Tx<'_>, key: EntityKey, device: &str) -> Result<Waiting> {
    let value = tx.get(Family::DeviceKey, &rows::device_key(key, kind::WAITING, device))?;
    // One that cannot be read must keep no messages from the user's other devices.
    Ok(match value.and_then(|value| record::decode(&value).ok()) {
        Some(StoredWaiting::Both(count, bytes)) => Waiting { count, bytes },
        Some(StoredWaiting::Count(count)) => Waiting { count, bytes: 0 },
        None => Waiting::default(),
    })
}

fn put_waiting(tx: &mut Tx<'_>, key: EntityKey, device: &str, waiting: Waiting) {
    let row = rows::device_key(key, kind::WAITING, device);
    match waiting.count {
        0 => tx.delete(Family::DeviceKey, row),
        count => {
            let stored = StoredWaiting::Both(count, waiting.bytes);
            tx.put(Family::DeviceKey, row, record::encode(&stored));
        }
    }
}

/// When a transaction was made, in milliseconds since 1970.
pub(super) fn sent_at(mark: &[u8]) -> Option<u64> {
    let (tag, ms) = mark.split_first()?;
    let ms = ms.try_into().ok().filter(|_| *tag == TAG)?;
    Some(u64::from_be_bytes(ms))
}

/// Removes the transactions of a device.
pub(super) fn forget_sent(tx: &mut Tx<'_>, key: EntityKey, device: &DeviceId) -> Result<()> {
    for (row, _) in tx.scan(Family::ToDeviceMark, &rows::sent(key, device.as_str(), &[]))? {
        tx.delete(Family::ToDeviceMark, row);
    }
    Ok(())
}

/// Puts messages that come out of outboxes into inboxes.
pub(crate) struct ToDeviceHandler(Weak<Users>);

impl ToDeviceHandler {
    pub(crate) fn new(users: &Arc<Users>) -> Self {
        Self(Arc::downgrade(users))
    }
}

#[async_trait]
impl OutboxHandler for ToDeviceHandler {
    async fn apply(
        &self,
        target: &str,
        payload: &[u8],
        source: (ShardId, Position, u16),
    ) -> std::result::Result<(), hearth_storage::Error> {
        let Some(users) = self.0.upgrade() else {
            return Err(hearth_storage::Error::Stopped);
        };
        let Ok(user_id) = UserId::parse(target) else {
            return Ok(());
        };
        let batch: ToDeviceBatch = record::decode(payload)?;
        let user = match users.get(&user_id) {
            Ok(Some(user)) => user,
            Ok(None) => return Ok(()),
            Err(error) => return Err(storage_error(error)),
        };
        let now = users.now_ms();
        user.write_anyway(|tx| deliver(tx, user.key, batch, source, now))
            .await
            .map_err(storage_error)
    }
}

fn deliver(
    tx: &mut Tx<'_>,
    key: EntityKey,
    batch: ToDeviceBatch,
    (shard, position, index): (ShardId, Position, u16),
    now_ms: u64,
) -> Result<()> {
    // The rows of one shard to one user come in order, so the last one says which were applied.
    let received = rows::received(key, shard.0);
    let mark = [&[TAG], position.to_be_bytes().as_slice(), &index.to_be_bytes()].concat();
    if tx
        .get(Family::ToDeviceMark, &received)?
        .is_some_and(|last| last >= mark)
    {
        return Ok(());
    }
    let devices = addressed(tx, key, &batch)?;
    let mut next = 0;
    for device in devices {
        let content = batch.messages.get(&device).or_else(|| batch.messages.get("*"));
        let Some(content) = content else { continue };
        let at = tx.position();
        let message = message(&batch, content, now_ms);
        let mut waiting = make_room(tx, key, &device, now_ms, message.len() as u64)?;
        let row = rows::to_device(key, &device, at, next);
        next = next.checked_add(1).ok_or(Error::TooMany("Too many devices"))?;
        waiting.add(&message);
        tx.put(Family::ToDevice, row, message);
        put_waiting(tx, key, &device, waiting);
    }
    if next > 0 {
        tx.put(Family::ToDeviceMark, received, mark);
        tx.changed(Change::ToDevice)?;
    }
    Ok(())
}

/// The devices of a user that a batch has messages for.
fn addressed(tx: &Tx<'_>, key: EntityKey, batch: &ToDeviceBatch) -> Result<Vec<String>> {
    let mut devices = Vec::new();
    if !batch.messages.contains_key("*") {
        for device in batch.messages.keys() {
            let row = keys::device(key, device);
            if tx.get(Family::UserDevice, &row)?.is_some() {
                devices.push(device.clone());
            }
        }
        return Ok(devices);
    }
    for (row, _) in tx.scan(Family::UserDevice, &key.to_bytes())? {
        let device = std::str::from_utf8(&row[EntityKey::LEN..]).ok();
        devices.extend(device.map(str::to_owned));
    }
    Ok(devices)
}

/// A message as it is stored: its content is kept as it was sent.
fn message(batch: &ToDeviceBatch, content: &RawValue, now_ms: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Event<'a> {
        content: &'a RawValue,
        sender: &'a UserId,
        r#type: &'a str,
    }
    let event = Event {
        content,
        sender: &batch.sender,
        r#type: &batch.kind,
    };
    let mut stored = Vec::with_capacity(content.get().len() + 120);
    stored.push(TAG_TIMED);
    stored.extend_from_slice(&now_ms.to_be_bytes());
    serde_json::to_writer(&mut stored, &event).expect("text and JSON can be written");
    stored
}

/// Removes messages that waited too long, and where too many wait, or too much for one more of a size, the oldest tenth.
/// Gives what waits then.
fn make_room(tx: &mut Tx<'_>, key: EntityKey, device: &str, now_ms: u64, size: u64) -> Result<Waiting> {
    let mut waiting = waiting(tx, key, device)?;
    if waiting.count == 0 {
        return Ok(Waiting::default());
    }
    let of_device = rows::of_device(key, device);
    // Where no time was stored, only the number counts.
    let is_old = |value: &[u8]| match came_at(value) {
        0 => false,
        at => at.saturating_add(WAITING_MAX_MS) < now_ms,
    };
    let oldest = tx.first(Family::ToDevice, &of_device, &of_device)?;
    let is_full = waiting.count >= WAITING_MAX;
    let is_heavy = waiting.bytes + size > WAITING_MAX_BYTES;
    if !is_full && !is_heavy && !oldest.is_some_and(|(_, value)| is_old(&value)) {
        return Ok(waiting);
    }
    let least = if is_full { GOES_AT_ONCE } else { 0 };
    let most_bytes = match is_heavy {
        true => WAITING_MAX_BYTES - WAITING_MAX_BYTES / 10,
        false => WAITING_MAX_BYTES,
    };
    let (mut gone, mut start) = (0, of_device.clone());
    // One by one: all of them may be more than fits into memory. Of many that are old some go with the next messages.
    while gone < GOES_AT_ONCE {
        let Some((row, value)) = tx.first(Family::ToDevice, &start, &of_device)? else {
            return Ok(Waiting::default());
        };
        if gone >= least && waiting.bytes + size <= most_bytes && !is_old(&value) {
            break;
        }
        start = [row.as_slice(), &[0]].concat();
        tx.delete(Family::ToDevice, row);
        waiting.take(&value);
        gone += 1;
    }
    Ok(waiting)
}

#[cfg(test)]
#[path = "to_device_tests.rs"]
mod tests;
