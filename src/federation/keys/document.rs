//! The document in which a server publishes its keys (server-server API, "Publishing Keys"): reading one of somebody
//! else's, making ours. Pure.

use std::collections::BTreeMap;

use hearth_events::{KeyPair, base64_decode, signing_bytes, verify_bytes};
use ruma::ServerName;
use serde_json::{Map, Value, json};

use super::OldKey;

/// The largest document: one with a hundred keys is far smaller.
pub(crate) const DOCUMENT_MAX_BYTES: usize = 32 << 10;
/// The most keys of a document, old ones included. Each current one costs the check of a signature.
const KEYS_MAX: usize = 128;
/// The longest key id.
const KEY_ID_MAX_BYTES: usize = 128;

/// A document whose keys can be used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    /// The whole of it, with all signatures.
    pub(crate) json: Map<String, Value>,
    /// The current keys.
    pub(crate) verify: BTreeMap<String, [u8; 32]>,
    /// Keys that the server no longer uses, and until when it did.
    pub(crate) old: BTreeMap<String, ([u8; 32], u64)>,
    /// Until when the document is to be used, as it says itself.
    pub(crate) valid_until_ms: u64,
}

impl Document {
    /// Reads a document and checks that it is the one of `server`, and signed by it. A current key with which it is not
    /// signed is left out: nobody proved to have it.
    pub(crate) fn check(json: Map<String, Value>, server: &ServerName) -> Result<Self, String> {
        let mut document = Self::read(json, server)?;
        let message = signing_bytes(&document.json).map_err(|error| error.to_string())?;
        let signatures = document
            .json
            .get("signatures")
            .and_then(|all| all.get(server.as_str()))
            .and_then(Value::as_object)
            .ok_or("it is not signed by its server")?;
        let signed: Vec<String> = document
            .verify
            .iter()
            .filter(|(id, key)| {
                let signature = signatures.get(*id).and_then(Value::as_str);
                signature.is_some_and(|signature| verify_bytes(&message, signature, key).is_ok())
            })
            .map(|(id, _)| id.clone())
            .collect();
        if signed.is_empty() {
            return Err("it is not signed with any of its keys".to_owned());
        }
        document.verify.retain(|id, _| signed.contains(id));
        Ok(document)
    }

    /// Reads a document that was checked before. Keys of other algorithms than ed25519 are left out.
    pub(crate) fn read(json: Map<String, Value>, server: &ServerName) -> Result<Self, String> {
        if json.get("server_name").and_then(Value::as_str) != Some(server.as_str()) {
            return Err("it is of another server".to_owned());
        }
        let valid_until_ms = json
            .get("valid_until_ts")
            .and_then(Value::as_u64)
            .ok_or("valid_until_ts is no time")?;
        let keys = |name: &str| json.get(name).and_then(Value::as_object);
        let current = keys("verify_keys").ok_or("verify_keys is no object")?;
        let former = keys("old_verify_keys");
        if current.len() + former.map_or(0, Map::len) > KEYS_MAX {
            return Err("it has too many keys".to_owned());
        }
        let mut verify = BTreeMap::new();
        for (id, value) in current.iter().filter(|(id, _)| is_usable(id)) {
            verify.insert(
                id.clone(),
                public_key(value).ok_or("a key is not 32 bytes of base64")?,
            );
        }
        let mut old = BTreeMap::new();
        for (id, value) in former.into_iter().flatten().filter(|(id, _)| is_usable(id)) {
            // One bad old key does not take the current ones away.
            let expired_ms = value.get("expired_ts").and_then(Value::as_u64);
            if let (Some(key), Some(expired_ms)) = (public_key(value), expired_ms)
                && !verify.contains_key(id)
            {
                old.insert(id.clone(), (key, expired_ms));
            }
        }
        Ok(Self {
            json,
            verify,
            old,
            valid_until_ms,
        })
    }

    /// Whether it has a key of this id, current or old.
    pub(crate) fn mentions(&self, id: &str) -> bool {
        self.verify.contains_key(id) || self.old.contains_key(id)
    }
}

fn is_usable(id: &str) -> bool {
    id.len() <= KEY_ID_MAX_BYTES
        && id
            .strip_prefix("ed25519:")
            .is_some_and(|version| !version.is_empty())
}

fn public_key(value: &Value) -> Option<[u8; 32]> {
    let bytes = base64_decode(value.get("key")?.as_str()?)?;
    bytes.try_into().ok()
}

/// Our own document, signed.
pub(crate) fn own(
    server: &ServerName,
    key: &KeyPair,
    former: &[OldKey],
    valid_until_ms: u64,
) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("server_name".to_owned(), server.as_str().into());
    object.insert("valid_until_ts".to_owned(), valid_until_ms.into());
    object.insert(
        "verify_keys".to_owned(),
        json!({ key.key_id(): { "key": key.public_key_base64() } }),
    );
    let former: Map<String, Value> = former
        .iter()
        .map(|old| {
            let key = hearth_events::base64_encode(&old.public_key);
            (
                old.id.clone(),
                json!({ "key": key, "expired_ts": old.expired_ms }),
            )
        })
        .collect();
    object.insert("old_verify_keys".to_owned(), former.into());
    hearth_events::sign_json(&mut object, server.as_str(), key).expect("our own document can be signed");
    object
}
