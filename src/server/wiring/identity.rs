//! Who the server is: its name, to which a data directory is bound, and its signing key.

use hearth_core::random::SharedRandom;
use hearth_core::{Config, Random, random};
use hearth_events::KeyPair;
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

/// The server's name. A data directory made for another name is refused: its users, rooms and
/// signatures would all be somebody else's.
pub fn check_server_name(config: &Config, engine: &dyn Engine) -> Result<OwnedServerName, Error> {
    let name = OwnedServerName::try_from(config.server_name.as_str())
        .map_err(|error| unusable(config, format!("server_name: {error}")))?;
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

/// The signing key, made at the first start.
pub fn signing_key(config: &Config, engine: &dyn Engine, source: &dyn Random) -> Result<KeyPair, Error> {
    if let Some(line) = read::<String>(config, engine, SIGNING_KEY)? {
        return KeyPair::from_line(&line).map_err(|error| unusable(config, error));
    }
    let mut seed = [0u8; 32];
    source.fill(&mut seed);
    let version = random::alphanumeric(source, KEY_VERSION_CHARS);
    let key = KeyPair::from_seed(seed, &version).map_err(|error| unusable(config, error))?;
    write(config, engine, SIGNING_KEY, &key.to_line())?;
    Ok(key)
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
}
