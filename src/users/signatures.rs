//! The signatures that a user put on keys.
//!
//! A signature stands with the user who made it, whoever's key it is on: that is one entity for each operation, and
//! just what may be shown. A user's own signatures on his keys are for all; those of his user-signing key on others'
//! master keys are for him alone.

use std::collections::{BTreeMap, BTreeSet};

use hearth_core::limits;
use hearth_events::signing_bytes;
use hearth_storage::{EntityKey, Family, Position, Reader, record};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::change::Change;
use crate::cross_signing::{
    CrossSigningKeys, Object, Signer, load_device_keys, load_keys, of_user, read_keys, signature_ids,
};
use crate::e2ee::lists;
use crate::error::{Error, Result};
use crate::keys::{self, field};
use crate::user::User;
use crate::write::Tx;

/// A user's signatures on one key.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Signatures {
    /// The hash of the signed text: on another text, as of a new device of the same id, they mean nothing.
    of: String,
    /// Where in the user's shard the last one came.
    #[serde(default)]
    at: Position,
    /// The signatures by the id of the key that made them.
    by: BTreeMap<String, String>,
}

impl User {
    /// The signatures that this user put on a key: `id` is a device's id, or the name of a cross-signing key.
    pub fn signatures_on(&self, owner: &UserId, id: &str, key: &Object) -> Result<BTreeMap<String, String>> {
        signatures(self.users.log.engine().as_ref(), self.key, owner, id, key)
    }

    /// Adds the signatures that this user put on a key to the key's JSON. For a device's keys this is the owner's to
    /// do, with the device's id.
    pub fn add_signatures_on(&self, owner: &UserId, id: &str, key: &mut Object) -> Result<()> {
        merge(self.users.log.engine().as_ref(), self, owner, id, key)
    }

    /// The other users on whose keys this user put signatures after a position, up to and including another: his
    /// devices must look at those keys again.
    pub fn signed_between(&self, after: Position, until: Position) -> Result<BTreeSet<OwnedUserId>> {
        let mut found = BTreeSet::new();
        let mut failed = None;
        let prefix = keys::user(self.key, field::SIGNATURES, "");
        let end = hearth_storage::prefix_end(&prefix);
        let engine = self.users.log.engine();
        engine.scan(Family::User, &prefix, &end, false, &mut |row, value| {
            match record::decode::<Signatures>(value) {
                Ok(signatures) if signatures.at > after && signatures.at <= until => {
                    found.extend(owner_of(&row[prefix.len()..]));
                }
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        })?;
        found.remove(&self.id);
        failed.map_or(Ok(found), |error| Err(error.into()))
    }

    /// Stores signatures of this user on keys of himself or of another. `uploaded` holds for each key's owner and id
    /// the signed JSON; `remote_masters` are the master keys of users of other servers. Gives back, by owner and id, what was refused and why; the rest is stored.
    pub async fn upload_signatures<'a>(
        &self,
        uploaded: &'a [(&'a UserId, &'a str, &'a Value)],
        remote_masters: &BTreeMap<OwnedUserId, Object>,
    ) -> Result<Vec<(&'a UserId, &'a str, Error)>> {
        if uploaded.len() > limits::SIGNATURE_UPLOAD_MAX_KEYS {
            return Err(Error::TooLarge("Too many keys in one request"));
        }
        // Other users' keys are of other entities; this operation only reads them.
        let mut masters = BTreeMap::new();
        for (owner, ..) in uploaded {
            if **owner != self.id && !masters.contains_key(owner) {
                let user = self.users.get(owner)?;
                let found = user.map(|user| read_keys(user.users.log.engine().as_ref(), user.key));
                let master = found.transpose()?.and_then(|keys| keys.master);
                masters.insert(*owner, master.or_else(|| remote_masters.get(*owner).cloned()));
            }
        }
        self.write(|tx| {
            let own = load_keys(tx, self.key)?;
            let mut failures = Vec::new();
            let (mut own_changed, mut other_changed) = (BTreeSet::new(), false);
            for (owner, id, value) in uploaded {
                let is_own = **owner == self.id;
                let master = masters.get(owner).and_then(Option::as_ref);
                let outcome = match value.as_object() {
                    None => Err(Error::InvalidParam("The signed key must be an object")),
                    Some(signed) if is_own => self.sign_own(tx, &own, id, signed),
                    Some(signed) => self.sign_other(tx, &own, owner, master, id, signed),
                };
                match outcome {
                    Ok(true) if is_own => {
                        let is_key = own.all().into_iter().any(|key| is_named(key, id));
                        own_changed.insert((!is_key).then(|| OwnedDeviceId::from(*id)));
                    }
                    Ok(_) if is_own => {}
                    Ok(changed) => other_changed |= changed,
                    Err(error @ (Error::Storage(_) | Error::Internal(_))) => return Err(error),
                    Err(error) => failures.push((*owner, *id, error)),
                }
            }
            if !own_changed.is_empty() {
                let changed: Vec<_> = own_changed.into_iter().collect();
                lists::changed(tx, &self.id, self.key, self.users.now_ms(), &changed)?;
            } else if other_changed {
                // For this user's devices alone: nobody else sees these signatures.
                tx.changed(Change::DeviceList)?;
            }
            Ok(failures)
        })
        .await
    }

    /// Takes signatures on one of the user's own keys; says whether one is new.
    fn sign_own(&self, tx: &mut Tx<'_>, own: &CrossSigningKeys, id: &str, signed: &Object) -> Result<bool> {
        let of_name = |key: Option<&Object>| is_named(key, id);
        if let Some(key) = own.all().into_iter().find(|key| of_name(*key)).flatten() {
            let is_master = of_name(own.master.as_ref());
            return self.take_signatures(tx, &self.id, id, key, signed, |tx, key_id| {
                if is_master {
                    return self.device_signer(tx, key_id);
                }
                Ok(Signer::of(own.master.as_ref()).filter(|signer| signer.id == key_id))
            });
        }
        let Some(device) = load_device_keys(tx, self.key, id)? else {
            return Err(Error::NotFound("Key"));
        };
        self.take_signatures(tx, &self.id, id, &device, signed, |_, key_id| {
            let own_key = Signer::of_device(&device, id).filter(|signer| signer.id == key_id);
            let by_user = Signer::of(own.self_signing.as_ref()).filter(|signer| signer.id == key_id);
            Ok(own_key.or(by_user))
        })
    }

    /// Takes the user-signing key's signature on another user's master key.
    fn sign_other(
        &self,
        tx: &mut Tx<'_>,
        own: &CrossSigningKeys,
        owner: &UserId,
        master: Option<&Object>,
        id: &str,
        signed: &Object,
    ) -> Result<bool> {
        let master = master.filter(|key| Signer::of(Some(key)).is_some_and(|signer| signer.name() == id));
        let Some(master) = master else {
            return Err(Error::NotFound("Master key of this id"));
        };
        self.take_signatures(tx, owner, id, master, signed, |_, key_id| {
            Ok(Signer::of(own.user_signing.as_ref()).filter(|signer| signer.id == key_id))
        })
    }

    /// Checks every signature of this user on a key, and stores those that the key does not bear itself.
    fn take_signatures(
        &self,
        tx: &mut Tx<'_>,
        owner: &UserId,
        id: &str,
        key: &Object,
        signed: &Object,
        signer_of: impl Fn(&Tx<'_>, &str) -> Result<Option<Signer>>,
    ) -> Result<bool> {
        let text = covered(key)?;
        if covered(signed)? != text {
            let sentence = "What was signed is not the key as it stands here";
            return Err(Error::InvalidSignature(sentence.to_owned()));
        }
        let ids = signature_ids(signed, &self.id);
        if ids.is_empty() {
            return Err(Error::InvalidSignature(
                "There is no signature of yours on the key".to_owned(),
            ));
        }
        let row = signatures_row(self.key, owner, id);
        let stored = tx.get(Family::User, &row)?;
        let stored: Option<Signatures> = stored.as_deref().map(record::decode).transpose()?;
        let of = hash(&text);
        let mut signatures = stored.filter(|stored| stored.of == of).unwrap_or_default();
        signatures.of = of;
        let mut changed = false;
        for key_id in ids {
            let signature = signature(signed, &self.id, &key_id).unwrap_or_default();
            if signature_is(key, &self.id, &key_id, signature) {
                continue;
            }
            let Some(signer) = signer_of(tx, &key_id)? else {
                let sentence = format!("{key_id} is no key of yours that may sign this key");
                return Err(Error::InvalidSignature(sentence));
            };
            signer.check(signed, &self.id)?;
            let before = signatures.by.insert(key_id, signature.to_owned());
            changed |= before.as_deref() != Some(signature);
        }
        if signatures.by.len() > limits::SIGNATURES_PER_KEY_MAX {
            return Err(Error::TooMany("Too many signatures on one key"));
        }
        if changed {
            signatures.at = tx.position();
            tx.put(Family::User, row, record::encode(&signatures));
        }
        Ok(changed)
    }

    /// Deletes the signatures that keys made which are no longer the user's.
    pub(crate) fn drop_signatures_by(&self, tx: &mut Tx<'_>, gone: &[String]) -> Result<()> {
        for (row, value) in tx.scan(Family::User, &keys::user(self.key, field::SIGNATURES, ""))? {
            let mut signatures: Signatures = record::decode(&value)?;
            let before = signatures.by.len();
            signatures.by.retain(|id, _| !gone.contains(id));
            if signatures.by.is_empty() {
                tx.delete(Family::User, row);
            } else if signatures.by.len() < before {
                tx.put(Family::User, row, record::encode(&signatures));
            }
        }
        Ok(())
    }
}

/// Whether a cross-signing key has this name.
fn is_named(key: Option<&Object>, id: &str) -> bool {
    Signer::of(key).is_some_and(|signer| signer.name() == id)
}

fn covered(object: &Object) -> Result<Vec<u8>> {
    signing_bytes(object).map_err(|_| Error::InvalidParam("The key cannot be written as canonical JSON"))
}

fn hash(text: &[u8]) -> String {
    hearth_events::base64_encode(&blake3::hash(text).as_bytes()[..16])
}

fn signature<'a>(object: &'a Object, user: &UserId, key_id: &str) -> Option<&'a str> {
    of_user(object, user)?.get(key_id)?.as_str()
}

fn signature_is(object: &Object, user: &UserId, key_id: &str, text: &str) -> bool {
    signature(object, user, key_id) == Some(text)
}

fn signatures_row(signer: EntityKey, owner: &UserId, id: &str) -> Vec<u8> {
    keys::user(signer, field::SIGNATURES, &format!("{owner}\0{id}"))
}

/// The owner of the key that a row's signatures are on, from the end of the row's key.
fn owner_of(end: &[u8]) -> Option<OwnedUserId> {
    let (owner, _) = std::str::from_utf8(end).ok()?.split_once('\0')?;
    OwnedUserId::try_from(owner).ok()
}

/// Deletes all signatures of a user.
pub(crate) fn remove(tx: &mut Tx<'_>, user: EntityKey) -> Result<()> {
    for (row, _) in tx.scan(Family::User, &keys::user(user, field::SIGNATURES, ""))? {
        tx.delete(Family::User, row);
    }
    Ok(())
}

fn signatures(
    reader: &dyn Reader,
    signer: EntityKey,
    owner: &UserId,
    id: &str,
    key: &Object,
) -> Result<BTreeMap<String, String>> {
    let Some(value) = reader.get(Family::User, &signatures_row(signer, owner, id))? else {
        return Ok(BTreeMap::new());
    };
    let stored: Signatures = record::decode(&value)?;
    if stored.of != hash(&covered(key)?) {
        return Ok(BTreeMap::new());
    }
    Ok(stored.by)
}

pub(crate) fn merge(
    reader: &dyn Reader,
    signer: &User,
    owner: &UserId,
    id: &str,
    key: &mut Object,
) -> Result<()> {
    let found = signatures(reader, signer.key, owner, id, key)?;
    if found.is_empty() {
        return Ok(());
    }
    let empty = || Value::Object(Map::new());
    let all = key.entry("signatures").or_insert_with(empty).as_object_mut();
    let by_signer = all.and_then(|all| {
        all.entry(signer.id.as_str())
            .or_insert_with(empty)
            .as_object_mut()
    });
    if let Some(by_signer) = by_signer {
        by_signer.extend(found.into_iter().map(|(id, signature)| (id, signature.into())));
    }
    Ok(())
}
