//! Who the server is: its name, to which a data directory is bound, and its signing key.

use hearth_core::random::SharedRandom;
use hearth_core::{Config, Random, random};
use hearth_events::KeyPair;
use hearth_federation::OldKey;
use hearth_push::Vapid;
use hearth_storage::schema::meta::MetaKey;
use hearth_storage::{Batch, Engine, Family, record};
use ruma::OwnedServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// A key's version has this many letters: enough that a new key never gets an old one's name.
const KEY_VERSION_CHARS: usize = 6;

const SERVER_NAME: MetaKey<'static> = MetaKey::Named("server_name");
const VAPID_KEY: MetaKey<'static> = MetaKey::Named("vapid_key");
const SIGNING_KEY: MetaKey<'static> = MetaKey::Named("signing_key");
const FORMER_KEYS: MetaKey<'static> = MetaKey::Named("former_signing_keys");

/// A key that was rotated away, as it is stored.
#[derive(Serialize, serde::Deserialize)]
struct StoredFormer {
    id: String,
    key: String,
    expired_ts: u64,
}

/// The server's name. A data directory made for another name is refused: its users, rooms and
/// signatures would all be somebody else's.
pub fn check_server_name(config: &Config, engine: &dyn Engine) -> Result<OwnedServerName, Error> {
    let name = server_name(config)?;
    match read::<String>(config, engine, SERVER_NAME)? {
        None => write(config, engine, SERVER_NAME, &config.server_name)?,
        Some(stored) if stored == config.server_name => {}
        Some(stored) => {
            return Err(unusable(
                config,
                format!(
                    "it belongs to {stored:?}, but server_name is {:?}",
                    config.server_name
                ),
            ));
        }
    }
    Ok(name)
}

/// The configured name.
pub fn server_name(config: &Config) -> Result<OwnedServerName, Error> {
    OwnedServerName::try_from(config.server_name.as_str())
        .map_err(|error| unusable(config, format!("server_name: {error}")))
}

/// The signing key, made at the first start.
pub fn signing_key(config: &Config, engine: &dyn Engine, source: &dyn Random) -> Result<KeyPair, Error> {
    if let Some(line) = read::<String>(config, engine, SIGNING_KEY)? {
        return KeyPair::from_line(&line).map_err(|error| unusable(config, error));
    }
    let key = new_key(config, source)?;
    write(config, engine, SIGNING_KEY, &key.to_line())?;
    Ok(key)
}

fn new_key(config: &Config, source: &dyn Random) -> Result<KeyPair, Error> {
    let mut seed = [0u8; 32];
    source.fill(&mut seed);
    let version = random::alphanumeric(source, KEY_VERSION_CHARS);
    KeyPair::from_seed(seed, &version).map_err(|error| unusable(config, error))
}

/// Makes a new signing key and keeps of the present one what others need to check what it has signed. Gives the ids of
/// the old and of the new one.
pub fn rotate_signing_key(
    config: &Config,
    engine: &dyn Engine,
    source: &dyn Random,
    now_ms: u64,
) -> Result<(String, String), Error> {
    let old = signing_key(config, engine, source)?;
    let mut former = read::<Vec<StoredFormer>>(config, engine, FORMER_KEYS)?.unwrap_or_default();
    former.push(StoredFormer {
        id: old.key_id().to_owned(),
        key: old.public_key_base64(),
        expired_ts: now_ms,
    });
    let new = new_key(config, source)?;
    let mut batch = Batch::new();
    batch.put(Family::Meta, SIGNING_KEY.encode(), record::encode(&new.to_line()));
    batch.put(Family::Meta, FORMER_KEYS.encode(), record::encode(&former));
    engine
        .write(&batch, true)
        .map_err(|error| unusable(config, error))?;
    Ok((old.key_id().to_owned(), new.key_id().to_owned()))
}

/// The keys with which this name signed before: those that were rotated away here, and those that the operator names.
pub fn former_keys(config: &Config, engine: &dyn Engine, present: &KeyPair) -> Result<Vec<OldKey>, Error> {
    let stored = read::<Vec<StoredFormer>>(config, engine, FORMER_KEYS)?.unwrap_or_default();
    let named = config.old_verify_keys.iter().map(|former| StoredFormer {
        id: former.id.clone(),
        key: former.key.clone(),
        expired_ts: former.expired_ts,
    });
    let mut keys: Vec<OldKey> = Vec::new();
    for former in stored.into_iter().chain(named) {
        let wrong = |why: &str| unusable(config, format!("old_verify_keys: {} {why}", former.id));
        let bytes = hearth_events::base64_decode(&former.key).and_then(|bytes| bytes.try_into().ok());
        let public_key: [u8; 32] = bytes.ok_or_else(|| wrong("is not a public ed25519 key"))?;
        if former.id == present.key_id() {
            return Err(wrong("is the id of the key in use"));
        }
        if keys.iter().any(|key| key.id == former.id) {
            return Err(wrong("is there twice"));
        }
        keys.push(OldKey {
            id: former.id,
            public_key,
            expired_ms: former.expired_ts,
        });
    }
    Ok(keys)
}

/// The key by which services of Web Push know this server, made at the first start.
pub fn vapid(config: &Config, engine: &dyn Engine, source: &SharedRandom) -> Result<Vapid, Error> {
    let stored: Option<Vec<u8>> = read(config, engine, VAPID_KEY)?;
    let secret = match stored {
        Some(secret) => secret,
        None => {
            let secret = Vapid::generate(source).to_vec();
            write(config, engine, VAPID_KEY, &secret)?;
            secret
        }
    };
    let contact = format!("https://{}", config.server_name);
    Vapid::from_secret(&secret, contact).ok_or_else(|| unusable(config, "the key for Web Push is damaged"))
}

fn unusable(config: &Config, reason: impl std::fmt::Display) -> Error {
    Error::Data {
        folder: config.data_dir.display().to_string(),
        reason: reason.to_string(),
    }
}

fn read<T: DeserializeOwned>(
    config: &Config,
    engine: &dyn Engine,
    key: MetaKey<'_>,
) -> Result<Option<T>, Error> {
    let found = engine.get(Family::Meta, &key.encode());
    let decoded = found.and_then(|value| value.map(|value| record::decode(&value)).transpose());
    decoded.map_err(|error| unusable(config, error))
}

fn write<T: Serialize>(
    config: &Config,
    engine: &dyn Engine,
    key: MetaKey<'_>,
    value: &T,
) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.put(Family::Meta, key.encode(), record::encode(value));
    engine
        .write(&batch, true)
        .map_err(|error| unusable(config, error))
}

#[cfg(test)]
mod tests {
    use hearth_core::random::OsRandom;
    use hearth_storage::MemoryEngine;

    use super::*;

    #[test]
    fn name_and_key_stay() {
        let engine = MemoryEngine::new();
        let config = Config::for_tests("one.example");
        assert_eq!(
            check_server_name(&config, &engine).expect("a name"),
            "one.example"
        );
        let first = signing_key(&config, &engine, &OsRandom).expect("a key");
        let again = signing_key(&config, &engine, &OsRandom).expect("a key");
        assert_eq!(first.to_line(), again.to_line());
        assert!(check_server_name(&config, &engine).is_ok());
        let error = check_server_name(&Config::for_tests("two.example"), &engine).expect_err("another name");
        assert!(error.to_string().contains("one.example"), "{error}");
    }

    #[test]
    fn a_rotated_key_stays_known() {
        let engine = MemoryEngine::new();
        let mut config = Config::for_tests("one.example");
        let first = signing_key(&config, &engine, &OsRandom).expect("a key");
        let (old, new) = rotate_signing_key(&config, &engine, &OsRandom, 5).expect("it is rotated");
        let second = signing_key(&config, &engine, &OsRandom).expect("a key");
        assert_eq!((old.as_str(), new.as_str()), (first.key_id(), second.key_id()));
        assert_ne!(first.public_key(), second.public_key());
        config.old_verify_keys = vec![hearth_core::config::FormerKey {
            id: "ed25519:before".to_owned(),
            key: hearth_events::base64_encode(&[7; 32]),
            expired_ts: 3,
        }];
        let known = former_keys(&config, &engine, &second).expect("they are read");
        let expected = |id: &str, public_key, expired_ms| OldKey {
            id: id.to_owned(),
            public_key,
            expired_ms,
        };
        assert_eq!(
            known,
            [
                expected(&old, first.public_key(), 5),
                expected("ed25519:before", [7; 32], 3)
            ]
        );
        config.old_verify_keys[0].id = new;
        former_keys(&config, &engine, &second).expect_err("the key in use is no former one");
        config.old_verify_keys[0].id = old;
        former_keys(&config, &engine, &second).expect_err("one id, two keys");
    }
}
