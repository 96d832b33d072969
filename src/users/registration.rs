//! Registration tokens. What was used is stored; what is being used lives in memory with the session that uses it,
//! so a crash leaves no use pending for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_core::random::alphanumeric;
use hearth_core::{SharedClock, SharedRandom, limits};
use hearth_storage::{Family, Log, record, slot_of};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::keys;
use crate::write::{Lanes, Tx};

/// A token that allows registrations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationToken {
    /// The token itself.
    pub token: String,
    /// How often it may be used; without a limit if not given.
    #[serde(default)]
    pub uses_allowed: Option<u64>,
    /// How often it was used.
    #[serde(default)]
    pub completed: u64,
    /// When it ends.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// Whether its users become administrators: the bootstrap token of a new server.
    #[serde(default)]
    pub admin: bool,
}

/// How a registration token may be changed; `None` leaves a part as it is.
#[derive(Clone, Debug, Default)]
pub struct TokenChange {
    /// A new limit of uses, or none.
    pub uses_allowed: Option<Option<u64>>,
    /// A new end, or none.
    pub expires_at: Option<Option<u64>>,
}

/// What a consumed token gives besides the registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whether the new user is an administrator.
    pub admin: bool,
}

/// Uses of tokens by registrations that are not finished.
type Pending = Arc<Mutex<BTreeMap<String, u64>>>;

/// All registration tokens.
pub struct RegistrationTokens {
    log: Arc<Log>,
    lanes: Arc<Lanes>,
    clock: SharedClock,
    random: SharedRandom,
    pending: Pending,
}

/// A use of a token that is held for a registration under way; dropped, it is free again.
pub struct PendingUse {
    token: String,
    pending: Pending,
}

impl std::fmt::Debug for PendingUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PendingUse")
    }
}

impl PendingUse {
    /// The token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The token, whose use is no longer held.
    pub(crate) fn into_token(self) -> String {
        self.token.clone()
    }
}

impl Drop for PendingUse {
    fn drop(&mut self) {
        let mut pending = self.pending.lock();
        if let Some(count) = pending.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.token);
            }
        }
    }
}

/// Under this name, which is no token, stands which token is the bootstrap token.
const BOOTSTRAP: &str = "";

/// How many characters a generated token has.
const TOKEN_CHARS: usize = 24;

/// The longest token that the specification allows.
const TOKEN_MAX_CHARS: usize = 64;

impl RegistrationTokens {
    pub(crate) fn new(log: Arc<Log>, lanes: Arc<Lanes>, clock: SharedClock, random: SharedRandom) -> Self {
        Self {
            log,
            lanes,
            clock,
            random,
            pending: Arc::default(),
        }
    }

    /// Whether a registration with this token could succeed now.
    pub fn is_valid(&self, token: &str) -> Result<bool> {
        let pending = self.pending.lock().get(token).copied().unwrap_or(0);
        Ok(self
            .get(token)?
            .is_some_and(|record| record.allows(pending, self.clock.now_ms())))
    }

    /// Holds a use of a token while a registration is under way.
    pub fn hold(&self, token: &str) -> Result<PendingUse> {
        let record = self.get(token)?.ok_or(Error::InvalidRegistrationToken)?;
        let mut pending = self.pending.lock();
        let held = pending.get(token).copied().unwrap_or(0);
        if !record.allows(held, self.clock.now_ms()) {
            return Err(Error::InvalidRegistrationToken);
        }
        *pending.entry(token.to_owned()).or_default() += 1;
        Ok(PendingUse {
            token: token.to_owned(),
            pending: self.pending.clone(),
        })
    }

    /// A token's record.
    pub fn get(&self, token: &str) -> Result<Option<RegistrationToken>> {
        if !is_well_formed(token) {
            return Ok(None);
        }
        let value = self.log.engine().get(
            Family::TokenMisc,
            &keys::registration_token(slot_of(token), token),
        )?;
        Ok(value.as_deref().map(record::decode).transpose()?)
    }

    /// All tokens, for administrators.
    pub fn list(&self) -> Result<Vec<RegistrationToken>> {
        let mut found = Vec::new();
        self.log
            .engine()
            .scan(Family::TokenMisc, &[], &[0xFF], false, &mut |row, value| {
                // The row of the bootstrap token's name is no token.
                if row.len() > 2 {
                    found.extend(record::decode::<RegistrationToken>(value));
                }
                found.len() < limits::REGISTRATION_TOKENS_MAX
            })?;
        Ok(found)
    }

    /// Uses by registrations that are under way.
    pub fn pending(&self, token: &str) -> u64 {
        self.pending.lock().get(token).copied().unwrap_or(0)
    }

    /// Creates a token, with a generated text if none is given.
    pub async fn create(
        &self,
        token: Option<String>,
        uses_allowed: Option<u64>,
        expires_at: Option<u64>,
    ) -> Result<RegistrationToken> {
        if self.list()?.len() >= limits::REGISTRATION_TOKENS_MAX {
            return Err(Error::TooMany("Too many registration tokens"));
        }
        let token = token.unwrap_or_else(|| alphanumeric(self.random.as_ref(), TOKEN_CHARS));
        let new = RegistrationToken {
            token,
            uses_allowed,
            completed: 0,
            expires_at,
            admin: false,
        };
        self.insert(new).await
    }

    /// Changes a token.
    pub async fn change(&self, token: &str, change: TokenChange) -> Result<RegistrationToken> {
        self.edit(token, |record| {
            if let Some(uses_allowed) = change.uses_allowed {
                record.uses_allowed = uses_allowed;
            }
            if let Some(expires_at) = change.expires_at {
                record.expires_at = expires_at;
            }
            Ok(())
        })
        .await
    }

    /// Deletes a token.
    pub async fn delete(&self, token: &str) -> Result<()> {
        let row = keys::registration_token(slot_of(token), token);
        self.lanes
            .write(slot_of(token), |tx| {
                load(tx, token)?;
                tx.delete(Family::TokenMisc, row);
                Ok(())
            })
            .await
    }

    /// Counts a use of a token.
    pub async fn consume(&self, token: &str) -> Result<Grant> {
        let now = self.clock.now_ms();
        let record = self
            .edit(token, |record| {
                if !record.allows(0, now) {
                    return Err(Error::InvalidRegistrationToken);
                }
                record.completed += 1;
                Ok(())
            })
            .await?;
        Ok(Grant { admin: record.admin })
    }

    /// Takes back a counted use whose registration failed.
    pub async fn give_back(&self, token: &str) -> Result<()> {
        let given = self.edit(token, |record| {
            record.completed = record.completed.saturating_sub(1);
            Ok(())
        });
        match given.await {
            Ok(_) | Err(Error::InvalidRegistrationToken) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The one-time token whose user becomes the first administrator: made at the first start, and given again at
    /// later ones until it is used.
    pub async fn bootstrap(&self) -> Result<Option<String>> {
        let name_row = keys::registration_token(slot_of(BOOTSTRAP), BOOTSTRAP);
        if let Some(value) = self.log.engine().get(Family::TokenMisc, &name_row)? {
            let token: String = record::decode(&value)?;
            return Ok(self.is_valid(&token)?.then_some(token));
        }
        let token = alphanumeric(self.random.as_ref(), TOKEN_CHARS);
        let new = RegistrationToken {
            token,
            uses_allowed: Some(1),
            completed: 0,
            expires_at: None,
            admin: true,
        };
        let token = self.insert(new).await?.token;
        self.lanes
            .write(slot_of(BOOTSTRAP), |tx| {
                tx.put(Family::TokenMisc, name_row, record::encode(&token));
                Ok(())
            })
            .await?;
        Ok(Some(token))
    }

    async fn insert(&self, new: RegistrationToken) -> Result<RegistrationToken> {
        if !is_well_formed(&new.token) {
            return Err(Error::InvalidParam(
                "A registration token has 1 to 64 characters of A-Z, a-z, 0-9, and ._~-",
            ));
        }
        let slot = slot_of(&new.token);
        self.lanes
            .write(slot, |tx| {
                let row = keys::registration_token(slot, &new.token);
                if tx.get(Family::TokenMisc, &row)?.is_some() {
                    return Err(Error::InvalidParam("The registration token exists already"));
                }
                tx.put(Family::TokenMisc, row, record::encode(&new));
                Ok(new)
            })
            .await
    }

    async fn edit(
        &self,
        token: &str,
        edit: impl FnOnce(&mut RegistrationToken) -> Result<()>,
    ) -> Result<RegistrationToken> {
        self.lanes
            .write(slot_of(token), |tx| {
                let mut record = load(tx, token)?;
                edit(&mut record)?;
                tx.put(
                    Family::TokenMisc,
                    keys::registration_token(slot_of(token), token),
                    record::encode(&record),
                );
                Ok(record)
            })
            .await
    }
}

impl RegistrationToken {
    fn allows(&self, pending: u64, now: u64) -> bool {
        self.expires_at.is_none_or(|at| at > now)
            && self
                .uses_allowed
                .is_none_or(|allowed| self.completed + pending < allowed)
    }
}

fn load(tx: &Tx<'_>, token: &str) -> Result<RegistrationToken> {
    if !is_well_formed(token) {
        return Err(Error::InvalidRegistrationToken);
    }
    let value = tx.get(
        Family::TokenMisc,
        &keys::registration_token(slot_of(token), token),
    )?;
    Ok(record::decode(&value.ok_or(Error::InvalidRegistrationToken)?)?)
}

fn is_well_formed(token: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
    (1..=TOKEN_MAX_CHARS).contains(&token.len()) && token.bytes().all(allowed)
}
