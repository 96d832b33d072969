//! One-time keys: handed out once each, in the order of upload; then the fallback key, as often as asked.
//!
//! A client that never saw the answer to an upload makes it again, and meanwhile some of the keys may have been handed
//! out. So those are remembered for a time: uploaded again they are taken without an error, and not handed out.

use std::collections::BTreeMap;

use hearth_storage::{EntityKey, Family, record};
use ruma::{DeviceId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::device_keys::{KeyUpload, signing_key};
use super::rows::{self, kind};
use crate::error::{Error, Result};
use crate::user::User;
use crate::write::Tx;

/// The most one-time keys of a device: clients keep about 50 here.
const ONE_TIME_KEYS_MAX: u64 = 1_000;
/// How many keys that were handed out are remembered for a device: twice what clients upload at once.
const CLAIMED_MAX: u64 = 200;
/// Where these are remembered, in place of an algorithm, which no key's id leaves empty.
const CLAIMED: &str = "";
/// The most algorithms of a device's keys: there are two in the specification.
const ALGORITHMS_MAX: usize = 16;
/// The largest one-time or fallback key.
const KEY_MAX_BYTES: usize = 4 << 10;

/// A key that was handed out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OneTimeKey {
    /// Algorithm, colon, name.
    pub id: String,
    /// The key as uploaded.
    pub key: Value,
}

/// How many one-time keys a device has here, and which fallback keys were not used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// By algorithm; `signed_curve25519` always, because some clients upload only when they see it at 0.
    pub one_time: BTreeMap<String, u64>,
    /// The algorithms whose fallback key was not handed out yet.
    pub unused_fallback: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Fallback {
    key: OneTimeKey,
    used: bool,
}

/// What is known of a key's id.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Known {
    /// The key was handed out, as the one of this number. A key itself is never a list.
    Claimed(u64, Value),
    /// The key waits here.
    Waiting(Value),
}

/// What is kept beside the keys, so that counting reads one row.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// The order number of the next key.
    next: u64,
    /// How many keys were handed out.
    claimed: u64,
    counts: BTreeMap<String, u64>,
    /// Before these order numbers all keys of an algorithm were handed out: nothing of them is looked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    first: BTreeMap<String, u64>,
    fallback: BTreeMap<String, Fallback>,
}

impl State {
    fn view(&self) -> KeyCounts {
        let mut one_time = self.counts.clone();
        one_time.entry("signed_curve25519".to_owned()).or_default();
        let unused = self.fallback.iter().filter(|(_, fallback)| !fallback.used);
        KeyCounts {
            one_time,
            unused_fallback: unused.map(|(algorithm, _)| algorithm.clone()).collect(),
        }
    }
}

impl User {
    /// How many one-time keys a device has here.
    pub fn key_counts(&self, device: &DeviceId) -> Result<KeyCounts> {
        let row = rows::device_key(self.key, kind::ONE_TIME, device.as_str());
        let value = self.users.log.engine().get(Family::DeviceKey, &row)?;
        let state: Option<State> = value.as_deref().map(record::decode).transpose()?;
        Ok(state.unwrap_or_default().view())
    }

    /// Hands out one key of each device and algorithm, as far as there are some: one durable batch, so that no key
    /// goes out twice.
    pub async fn claim_keys(
        &self,
        wanted: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, OneTimeKey>> {
        self.write(|tx| {
            let mut found = BTreeMap::new();
            for (device, algorithm) in wanted {
                if let Some(key) = claim(tx, self.key, device, algorithm)? {
                    found.insert(device.clone(), key);
                }
            }
            Ok(found)
        })
        .await
    }
}

fn load(tx: &Tx<'_>, key: EntityKey, device: &str) -> Result<State> {
    let value = tx.get(Family::DeviceKey, &rows::device_key(key, kind::ONE_TIME, device))?;
    Ok(value
        .as_deref()
        .map(record::decode)
        .transpose()?
        .unwrap_or_default())
}

fn store(tx: &mut Tx<'_>, key: EntityKey, device: &str, state: &State) {
    tx.put(
        Family::DeviceKey,
        rows::device_key(key, kind::ONE_TIME, device),
        record::encode(state),
    );
}

fn claim(tx: &mut Tx<'_>, key: EntityKey, device: &str, algorithm: &str) -> Result<Option<OneTimeKey>> {
    if algorithm == CLAIMED {
        return Ok(None);
    }
    let mut state = load(tx, key, device)?;
    let from = state.first.get(algorithm).copied().unwrap_or(0);
    let start = rows::one_time_key(key, device, algorithm, from);
    let prefix = rows::one_time_keys(key, device, algorithm);
    if let Some((row, value)) = tx.first(Family::OneTimeKey, &start, &prefix)? {
        let one: OneTimeKey = record::decode(&value)?;
        if let Some(order) = rows::order_of(&row) {
            state.first.insert(algorithm.to_owned(), order + 1);
        }
        tx.delete(Family::OneTimeKey, row);
        remember(tx, key, device, &mut state, &one)?;
        if let Some(count) = state.counts.get_mut(algorithm) {
            *count = count.saturating_sub(1);
        }
        store(tx, key, device, &state);
        return Ok(Some(one));
    }
    let Some(fallback) = state.fallback.get_mut(algorithm) else {
        return Ok(None);
    };
    let found = fallback.key.clone();
    if !std::mem::replace(&mut fallback.used, true) {
        store(tx, key, device, &state);
    }
    Ok(Some(found))
}

/// Notes that a key was handed out, and forgets the oldest of those.
fn remember(
    tx: &mut Tx<'_>,
    key: EntityKey,
    device: &str,
    state: &mut State,
    one: &OneTimeKey,
) -> Result<()> {
    let number = state.claimed;
    state.claimed += 1;
    let known = record::encode(&Known::Claimed(number, one.key.clone()));
    tx.put(
        Family::OneTimeKeyId,
        rows::one_time_key_id(key, device, &one.id),
        known,
    );
    let row = rows::one_time_key(key, device, CLAIMED, number);
    tx.put(Family::OneTimeKey, row, record::encode(&one.id));
    let Some(oldest) = number.checked_sub(CLAIMED_MAX) else {
        return Ok(());
    };
    let row = rows::one_time_key(key, device, CLAIMED, oldest);
    let Some(id) = tx.get(Family::OneTimeKey, &row)? else {
        return Ok(());
    };
    tx.delete(Family::OneTimeKey, row);
    let by_id = rows::one_time_key_id(key, device, &record::decode::<String>(&id)?);
    // Its id may be another key's by now.
    if let Some(known) = tx.get(Family::OneTimeKeyId, &by_id)?
        && matches!(record::decode(&known)?, Known::Claimed(number, _) if number == oldest)
    {
        tx.delete(Family::OneTimeKeyId, by_id);
    }
    Ok(())
}

/// Refuses keys whose ids or sizes cannot be.
pub(super) fn check(upload: &KeyUpload) -> Result<()> {
    if upload.one_time_keys.len() as u64 > ONE_TIME_KEYS_MAX {
        return Err(Error::TooMany("A device has at most 1,000 one-time keys"));
    }
    if upload.fallback_keys.len() > ALGORITHMS_MAX {
        return Err(Error::TooMany("A device has keys of at most 16 algorithms"));
    }
    for (id, key) in upload.one_time_keys.iter().chain(&upload.fallback_keys) {
        let is_good = id.len() <= hearth_core::limits::ID_MAX_BYTES
            && id
                .split_once(':')
                .is_some_and(|(algorithm, name)| !algorithm.is_empty() && !name.is_empty());
        if !is_good {
            return Err(Error::InvalidParam(
                "The id of a key is an algorithm, a colon and a name",
            ));
        }
        if !(key.is_string() || key.is_object()) {
            return Err(Error::BadJson("A key is text or an object"));
        }
        if key.to_string().len() > KEY_MAX_BYTES {
            return Err(Error::TooLarge("A key is larger than 4 KiB"));
        }
    }
    Ok(())
}

/// Refuses keys that the device signed wrongly (Client-Server API, "One-time and fallback keys"): whoever claims one could
/// not use it, and the key would be spent. What has no signature of the device, and what comes before the device's
/// identity keys, cannot be checked here: it is for whoever claims it to judge.
pub(super) fn check_signatures(
    user: &UserId,
    device: &DeviceId,
    identity: &Map<String, Value>,
    upload: &KeyUpload,
) -> Result<()> {
    let key_id = format!("ed25519:{device}");
    let Some(public) = signing_key(identity, &key_id) else {
        return Ok(());
    };
    for (id, key) in upload.one_time_keys.iter().chain(&upload.fallback_keys) {
        let Some(key) = key.as_object() else { continue };
        let signed = key.get("signatures").and_then(|all| all.get(user.as_str()));
        if signed.and_then(|own| own.get(&key_id)).is_none() {
            continue;
        }
        hearth_events::verify_json_of(key, user.as_str(), &key_id, &public).map_err(|error| {
            Error::InvalidSignature(format!("The device's signature on {id} does not hold: {error}"))
        })?;
    }
    Ok(())
}

/// Removes all one-time and fallback keys of a device.
pub(super) fn remove(tx: &mut Tx<'_>, key: EntityKey, device: &DeviceId) -> Result<()> {
    tx.delete(
        Family::DeviceKey,
        rows::device_key(key, kind::ONE_TIME, device.as_str()),
    );
    let prefix = rows::of_device(key, device.as_str());
    for family in [Family::OneTimeKey, Family::OneTimeKeyId] {
        for (row, _) in tx.scan(family, &prefix)? {
            tx.delete(family, row);
        }
    }
    Ok(())
}

fn algorithm_of(id: &str) -> &str {
    id.split_once(':').map_or(id, |(algorithm, _)| algorithm)
}

/// Stores keys that are not there yet. Within one upload the order is that of the ids.
pub(super) fn upload(
    tx: &mut Tx<'_>,
    key: EntityKey,
    device: &DeviceId,
    one_time: BTreeMap<String, Value>,
    fallback: BTreeMap<String, Value>,
) -> Result<KeyCounts> {
    let device = device.as_str();
    let mut state = load(tx, key, device)?;
    let mut is_changed = false;
    for (id, value) in one_time {
        let by_id = rows::one_time_key_id(key, device, &id);
        if let Some(before) = tx.get(Family::OneTimeKeyId, &by_id)? {
            match record::decode(&before)? {
                Known::Claimed(_, handed_out) if handed_out == value => continue,
                Known::Waiting(waiting) if waiting == value => continue,
                Known::Waiting(_) => {
                    return Err(Error::InvalidParam("There is another one-time key with this id"));
                }
                // A device that was set up anew gives ids again.
                Known::Claimed(..) => {}
            }
        }
        let algorithm = algorithm_of(&id).to_owned();
        if state.counts.values().sum::<u64>() >= ONE_TIME_KEYS_MAX {
            return Err(Error::TooMany("A device has at most 1,000 one-time keys"));
        }
        if !state.counts.contains_key(&algorithm) && state.counts.len() >= ALGORITHMS_MAX {
            return Err(Error::TooMany("A device has keys of at most 16 algorithms"));
        }
        let row = rows::one_time_key(key, device, &algorithm, state.next);
        tx.put(Family::OneTimeKeyId, by_id, record::encode(&value));
        tx.put(
            Family::OneTimeKey,
            row,
            record::encode(&OneTimeKey { id, key: value }),
        );
        *state.counts.entry(algorithm).or_default() += 1;
        state.next += 1;
        is_changed = true;
    }
    for (id, value) in fallback {
        let algorithm = algorithm_of(&id).to_owned();
        let new = OneTimeKey { id, key: value };
        if state.fallback.get(&algorithm).is_some_and(|old| old.key == new) {
            continue;
        }
        if !state.fallback.contains_key(&algorithm) && state.fallback.len() >= ALGORITHMS_MAX {
            return Err(Error::TooMany("A device has keys of at most 16 algorithms"));
        }
        state.fallback.insert(
            algorithm,
            Fallback {
                key: new,
                used: false,
            },
        );
        is_changed = true;
    }
    if is_changed {
        store(tx, key, device, &state);
    }
    Ok(state.view())
}
