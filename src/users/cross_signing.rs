//! Cross-signing: the three keys of a user. Nothing is stored whose signature was not checked.

use hearth_core::limits;
use hearth_events::{base64_decode, signing_bytes, verify_json_of};
use hearth_storage::schema::device_key::DeviceKeyKey;
use hearth_storage::{EntityKey, Family, Reader, record};
use ruma::UserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::change::Change;
use crate::e2ee::lists;
use crate::error::{Error, Result};
use crate::keys::{self, field};
use crate::signatures::{self, merge};
use crate::user::User;
use crate::write::Tx;

/// A JSON object that is signed.
pub(crate) type Object = Map<String, Value>;

/// What a device's row in the `device_key` family begins with for its identity keys.
const IDENTITY_KEYS: u8 = 1;

/// The cross-signing keys of a user, each as JSON with its signatures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CrossSigningKeys {
    /// The master key, which signs the other two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<Object>,
    /// The key that signs the user's devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signing: Option<Object>,
    /// The key that signs other users' master keys. It is for its owner alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_signing: Option<Object>,
}

/// What came of an upload of cross-signing keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossSigningUpload {
    /// They are stored, or were there already.
    Done,
    /// They replace or add to what is there: the user must confirm it.
    NeedsConfirmation,
}

/// A key that signs: its id `ed25519:<name>`, and the public key.
pub(crate) struct Signer {
    pub(crate) id: String,
    public: [u8; 32],
}

impl Signer {
    /// The key of a stored cross-signing key.
    pub(crate) fn of(object: Option<&Object>) -> Option<Self> {
        let (id, public) = object?.get("keys")?.as_object()?.iter().next()?;
        Some(Self {
            id: id.clone(),
            public: public_key(public.as_str()?)?,
        })
    }

    /// The signing key of a device.
    pub(crate) fn of_device(keys: &Object, device: &str) -> Option<Self> {
        let id = format!("ed25519:{device}");
        let public = public_key(keys.get("keys")?.get(&id)?.as_str()?)?;
        Some(Self { id, public })
    }

    /// The name in the key's id: for a cross-signing key the public key itself.
    pub(crate) fn name(&self) -> &str {
        self.id.strip_prefix("ed25519:").unwrap_or(&self.id)
    }

    pub(crate) fn check(&self, object: &Object, user: &UserId) -> Result<()> {
        verify_json_of(object, user.as_str(), &self.id, &self.public).map_err(|error| {
            Error::InvalidSignature(format!("The signature by {} does not hold: {error}", self.id))
        })
    }
}

impl CrossSigningKeys {
    pub(crate) fn all(&self) -> [Option<&Object>; 3] {
        [
            self.master.as_ref(),
            self.self_signing.as_ref(),
            self.user_signing.as_ref(),
        ]
    }

    fn slots(&mut self) -> [&mut Option<Object>; 3] {
        [&mut self.master, &mut self.self_signing, &mut self.user_signing]
    }
}

impl User {
    /// The user's cross-signing keys as he sees them himself, with the signatures that he put on them.
    pub fn cross_signing_keys(&self) -> Result<CrossSigningKeys> {
        let snapshot = self.users.log.engine().snapshot();
        let mut found = read_keys(&*snapshot, self.key)?;
        for key in found.slots().into_iter().flatten() {
            if let Some(signer) = Signer::of(Some(key)) {
                merge(&*snapshot, self, &self.id, signer.name(), key)?;
            }
        }
        Ok(found)
    }

    /// The user's cross-signing keys as `viewer` may see them, another local user or, as nobody, another server: not
    /// the user-signing key, but with the viewer's own signature on the master key.
    pub fn cross_signing_keys_for(&self, viewer: Option<&User>) -> Result<CrossSigningKeys> {
        let mut found = self.cross_signing_keys()?;
        if viewer.is_some_and(|viewer| viewer.id == self.id) {
            return Ok(found);
        }
        found.user_signing = None;
        if let (Some(viewer), Some(master)) = (viewer, &mut found.master)
            && let Some(signer) = Signer::of(Some(master))
        {
            viewer.add_signatures_on(&self.id, signer.name(), master)?;
        }
        Ok(found)
    }

    /// Stores cross-signing keys. `body` holds any of `master_key`, `self_signing_key` and `user_signing_key`.
    /// Without `confirmed` only a first upload is taken, and one of the same keys.
    pub async fn upload_cross_signing_keys(
        &self,
        body: &Object,
        confirmed: bool,
    ) -> Result<CrossSigningUpload> {
        let mut new = CrossSigningKeys {
            master: self.cross_signing_key(body, "master_key", "master")?,
            self_signing: self.cross_signing_key(body, "self_signing_key", "self_signing")?,
            user_signing: self.cross_signing_key(body, "user_signing_key", "user_signing")?,
        };
        if new.all().iter().all(Option::is_none) {
            return Err(Error::MissingParam("There is no key in the request"));
        }
        self.write(|tx| {
            let old = load_keys(tx, self.key)?;
            self.check_keys(tx, &old, &mut new)?;
            let pairs = || new.all().into_iter().zip(old.all());
            if pairs().all(|(new, old)| new.is_none() || is_same(new, old)) {
                return Ok(CrossSigningUpload::Done);
            }
            if old.master.is_some() && !confirmed {
                return Ok(CrossSigningUpload::NeedsConfirmation);
            }
            self.replace_keys(tx, old, new)?;
            Ok(CrossSigningUpload::Done)
        })
        .await
    }

    /// Checks the form of a key in an upload.
    fn cross_signing_key(&self, body: &Object, field: &str, usage: &str) -> Result<Option<Object>> {
        let object = match body.get(field) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(object)) => object,
            Some(_) => return Err(Error::InvalidParam("A cross-signing key must be an object")),
        };
        if object.get("user_id").and_then(Value::as_str) != Some(self.id.as_str()) {
            return Err(Error::InvalidParam(
                "`user_id` of a key is not the user who uploads it",
            ));
        }
        let usages = object.get("usage").and_then(Value::as_array);
        if !usages.is_some_and(|usages| usages.iter().any(|one| one.as_str() == Some(usage))) {
            return Err(Error::InvalidParam(
                "`usage` of a key does not name what it is uploaded as",
            ));
        }
        let count = object.get("keys").and_then(Value::as_object).map(Map::len);
        let signer = Signer::of(Some(object)).filter(|_| count == Some(1));
        let signer = signer.ok_or(Error::InvalidParam("`keys` must be one ed25519 key of 32 bytes"))?;
        if public_key(signer.name()) != Some(signer.public) || !signer.id.starts_with("ed25519:") {
            return Err(Error::InvalidParam(
                "A key's id must be `ed25519:` and the public key",
            ));
        }
        if serde_json::to_vec(object).map_or(usize::MAX, |text| text.len())
            > limits::CROSS_SIGNING_KEY_MAX_BYTES
        {
            return Err(Error::TooLarge("A cross-signing key is larger than 64 KiB"));
        }
        Ok(Some(object.clone()))
    }

    /// Checks the signatures of uploaded keys, and takes off those that cannot be checked.
    fn check_keys(&self, tx: &Tx<'_>, old: &CrossSigningKeys, new: &mut CrossSigningKeys) -> Result<()> {
        let signers: Vec<Option<Signer>> = new.all().map(Signer::of).into();
        for (at, signer) in signers.iter().enumerate() {
            let Some(signer) = signer else { continue };
            if tx
                .get(Family::UserDevice, &keys::device(self.key, signer.name()))?
                .is_some()
            {
                return Err(Error::Forbidden("The key's id is the id of one of your devices"));
            }
            if signers[..at]
                .iter()
                .flatten()
                .any(|other| other.public == signer.public)
            {
                return Err(Error::InvalidParam("Each key must be another one"));
            }
        }
        let master = Signer::of(new.master.as_ref().or(old.master.as_ref()));
        let master = master.ok_or(Error::MissingParam("There is no master key"))?;
        for key in [new.self_signing.as_mut(), new.user_signing.as_mut()]
            .into_iter()
            .flatten()
        {
            master.check(key, &self.id)?;
            keep_signatures(key, &self.id, |id| id == master.id);
        }
        if let Some(key) = &mut new.master {
            let mut known = Vec::new();
            for id in signature_ids(key, &self.id) {
                let signer = self.device_signer(tx, &id)?;
                // A key may sign itself; that says nothing, but it must hold too.
                let signer = signer.or_else(|| (id == master.id).then(|| Signer::of(Some(&*key)))?);
                if let Some(signer) = signer {
                    signer.check(key, &self.id)?;
                    known.push(id);
                }
            }
            keep_signatures(key, &self.id, |id| known.iter().any(|known| known == id));
        }
        Ok(())
    }

    fn replace_keys(&self, tx: &mut Tx<'_>, old: CrossSigningKeys, new: CrossSigningKeys) -> Result<()> {
        let others_see = [(&new.master, &old.master), (&new.self_signing, &old.self_signing)]
            .into_iter()
            .any(|(new, old)| new.is_some() && !is_same(new.as_ref(), old.as_ref()));
        let is_new_master = new.master.is_some() && !is_same(new.master.as_ref(), old.master.as_ref());
        // What the master key before has signed is worth nothing under the new one.
        let base = if is_new_master {
            CrossSigningKeys::default()
        } else {
            old.clone()
        };
        let merged = CrossSigningKeys {
            master: pick(new.master, base.master),
            self_signing: pick(new.self_signing, base.self_signing),
            user_signing: pick(new.user_signing, base.user_signing),
        };
        let ids = |keys: &CrossSigningKeys| -> Vec<String> {
            let signers = keys.all().into_iter().filter_map(Signer::of);
            signers.map(|signer| signer.id).collect()
        };
        let mut gone = ids(&old);
        let still = ids(&merged);
        gone.retain(|id| !still.contains(id));
        if !gone.is_empty() {
            self.drop_signatures_by(tx, &gone)?;
        }
        let row = keys::user(self.key, field::CROSS_SIGNING, "");
        tx.put(Family::User, row, record::encode(&merged));
        if !others_see {
            // The user-signing key is shown to nobody else.
            return tx.changed(Change::DeviceList);
        }
        lists::changed(tx, &self.id, self.key, self.users.now_ms(), &[None])
    }

    /// The signing key of the user's own device that a key id names.
    pub(crate) fn device_signer(&self, tx: &Tx<'_>, key_id: &str) -> Result<Option<Signer>> {
        let Some(device) = key_id.strip_prefix("ed25519:") else {
            return Ok(None);
        };
        let keys = load_device_keys(tx, self.key, device)?;
        Ok(keys.and_then(|keys| Signer::of_device(&keys, device)))
    }
}

/// Whether two keys are the same one. Their signatures do not matter.
fn is_same(new: Option<&Object>, old: Option<&Object>) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => {
            matches!((signing_bytes(new), signing_bytes(old)), (Ok(new), Ok(old)) if new == old)
        }
        _ => false,
    }
}

fn pick(new: Option<Object>, old: Option<Object>) -> Option<Object> {
    // The same key again brings no new signatures: those have an endpoint of their own.
    if is_same(new.as_ref(), old.as_ref()) {
        old
    } else {
        new.or(old)
    }
}

fn public_key(text: &str) -> Option<[u8; 32]> {
    base64_decode(text)?.try_into().ok()
}

pub(crate) fn of_user<'a>(object: &'a Object, user: &UserId) -> Option<&'a Object> {
    object.get("signatures")?.get(user.as_str())?.as_object()
}

/// The ids of the keys with which a user has signed.
pub(crate) fn signature_ids(object: &Object, user: &UserId) -> Vec<String> {
    of_user(object, user)
        .into_iter()
        .flat_map(Map::keys)
        .cloned()
        .collect()
}

/// Leaves of a key's signatures those of its owner by certain keys.
fn keep_signatures(object: &mut Object, user: &UserId, keep: impl Fn(&str) -> bool) {
    let mut kept = of_user(object, user).cloned().unwrap_or_default();
    kept.retain(|id, _| keep(id));
    object.remove("signatures");
    if !kept.is_empty() {
        let all = Map::from_iter([(user.to_string(), Value::Object(kept))]);
        object.insert("signatures".to_owned(), Value::Object(all));
    }
}

/// Deletes a user's keys and what they signed.
pub(crate) fn remove(tx: &mut Tx<'_>, user: EntityKey) -> Result<()> {
    tx.delete(Family::User, keys::user(user, field::CROSS_SIGNING, ""));
    signatures::remove(tx, user)
}

pub(crate) fn load_keys(tx: &Tx<'_>, user: EntityKey) -> Result<CrossSigningKeys> {
    let value = tx.get(Family::User, &keys::user(user, field::CROSS_SIGNING, ""))?;
    Ok(value
        .as_deref()
        .map(record::decode)
        .transpose()?
        .unwrap_or_default())
}

pub(crate) fn read_keys(reader: &dyn Reader, user: EntityKey) -> Result<CrossSigningKeys> {
    let value = reader.get(Family::User, &keys::user(user, field::CROSS_SIGNING, ""))?;
    Ok(value
        .as_deref()
        .map(record::decode)
        .transpose()?
        .unwrap_or_default())
}

/// Whether one of the user's cross-signing keys has this name in its id.
pub(crate) fn is_key_id(tx: &Tx<'_>, user: EntityKey, name: &str) -> Result<bool> {
    let keys = load_keys(tx, user)?;
    let mut signers = keys.all().into_iter().filter_map(Signer::of);
    Ok(signers.any(|signer| signer.name() == name))
}

/// The identity keys that a device has uploaded.
pub(crate) fn load_device_keys(tx: &Tx<'_>, user: EntityKey, device: &str) -> Result<Option<Object>> {
    let value = tx.get(Family::DeviceKey, &device_keys_row(user, device))?;
    Ok(value.as_deref().map(record::decode).transpose()?)
}

fn device_keys_row(user: EntityKey, device: &str) -> Vec<u8> {
    let key = DeviceKeyKey {
        user,
        kind: IDENTITY_KEYS,
        device: device.into(),
    };
    key.encode()
}

#[cfg(test)]
#[path = "cross_signing_tests.rs"]
mod tests;
