//! Sessions: logging in, access tokens that expire and are refreshed, logging out, login tokens.
//!
//! A device has one session. A refresh makes a second pair of tokens beside the first; the first pair ends at the
//! first use of the second, so that a client that never got the answer can refresh again.

use std::net::IpAddr;
use std::sync::Arc;

use hearth_core::random::Random;
use hearth_storage::{EntityKey, Family, Slot, record};
use ruma::{DeviceId, OwnedDeviceId, UserId};

use crate::account::{Account, account_of};
use crate::device::{self, DeviceRecord};
use crate::e2ee::dehydrated;
use crate::error::{Error, Result};
use crate::keys::{self, field};
use crate::token::{self, Hash, TokenKind, TokenRecord};
use crate::user::{User, Users};
use crate::write::Tx;

/// Who makes a request: what an access token stands for.
#[derive(Clone, Debug)]
pub struct Session {
    /// The user.
    pub user: User,
    /// The device. It survives token refreshes, so it is also the scope of transaction ids.
    pub device_id: OwnedDeviceId,
    /// The account's state; locked and suspended are the caller's to respect.
    pub account: Arc<Account>,
    /// The token's hash.
    pub(crate) token: Hash,
}

/// What a login asks for.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// The device to log in to; a new one if not given.
    pub device_id: Option<OwnedDeviceId>,
    /// The name of the device if it is new.
    pub initial_display_name: Option<String>,
    /// Whether the client can refresh tokens.
    pub refreshable: bool,
    /// The address the login came from.
    pub ip: Option<String>,
    /// The client's name for itself.
    pub user_agent: Option<String>,
}

/// The tokens of a session, for the client.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The device of the session.
    pub device_id: OwnedDeviceId,
    /// The access token.
    pub access_token: String,
    /// The refresh token, if the client asked for one.
    pub refresh_token: Option<String>,
    /// How long the access token is good, if not for ever.
    pub expires_in_ms: Option<u64>,
}

/// How many characters a generated device id has.
const DEVICE_ID_CHARS: usize = 10;

/// How many unused login tokens a user may have.
const LOGIN_TOKENS_MAX: usize = 20;

impl Users {
    /// The session of an access token. The first use of a refreshed token ends the tokens before it.
    pub async fn authenticate(self: &Arc<Self>, text: &str) -> Result<Session> {
        let (slot, hash) = token::parse(TokenKind::Access, text).ok_or(UNKNOWN)?;
        let token = self
            .token(slot, hash)?
            .filter(|token| token.kind == TokenKind::Access)
            .ok_or(UNKNOWN)?;
        if token.expires_at.is_some_and(|at| at <= self.clock.now_ms()) {
            return Err(Error::UnknownToken { soft_logout: true });
        }
        let user = self.user_of(slot, &token);
        if token.fresh {
            // Apart, because it comes once in the life of a token and all requests would carry what it needs.
            Box::pin(user.write_anyway(|tx| confirm(tx, user.key, hash))).await?;
        }
        let account = user.account()?;
        if account.deactivated {
            return Err(UNKNOWN);
        }
        Ok(Session {
            user,
            device_id: token.device_id.clone(),
            account,
            token: hash,
        })
    }

    /// New tokens for a refresh token.
    pub async fn refresh(self: &Arc<Self>, text: &str) -> Result<Tokens> {
        let (slot, hash) = token::parse(TokenKind::Refresh, text).ok_or(UNKNOWN)?;
        let token = self
            .token(slot, hash)?
            .filter(|token| token.kind == TokenKind::Refresh)
            .ok_or(UNKNOWN)?;
        let user = self.user_of(slot, &token);
        let account = user.account()?;
        if account.deactivated {
            return Err(UNKNOWN);
        }
        if account.locked {
            return Err(Error::Locked);
        }
        user.write(|tx| {
            let mut device = device::load(tx, user.key, &token.device_id)?.ok_or(UNKNOWN)?;
            if device.refresh == Some(hash) {
                drop_tokens(tx, slot, [device.old_access.take(), device.old_refresh.take()]);
                device.old_access = device.access.take();
                device.old_refresh = device.refresh.take();
            } else if device.old_refresh == Some(hash) {
                drop_tokens(tx, slot, [device.access.take(), device.refresh.take()]);
            } else {
                return Err(UNKNOWN);
            }
            let tokens = user.issue(tx, &token.device_id, &mut device, true, true);
            device::store(tx, user.key, &token.device_id, &device);
            Ok(tokens)
        })
        .await
    }

    /// Uses up a login token and gives the user who made it.
    pub async fn redeem_login_token(self: &Arc<Self>, text: &str) -> Result<User> {
        let (slot, hash) = token::parse(TokenKind::Login, text).ok_or(Error::Forbidden(BAD_LOGIN_TOKEN))?;
        let lanes = self.lanes.clone();
        let row = keys::token(slot, &hash);
        let outcome = lanes
            .write(slot, |tx| {
                let Some(value) = tx.get(Family::UserToken, &row)? else {
                    return Err(Error::Forbidden(BAD_LOGIN_TOKEN));
                };
                let token: TokenRecord = record::decode(&value)?;
                let key = EntityKey { slot, no: token.no };
                tx.set_user(&token.user_id, key);
                tx.delete(Family::UserToken, row);
                let mut open = login_tokens(tx, key)?;
                open.retain(|(other, _)| *other != hash);
                put_login_tokens(tx, key, &open);
                let usable = token.kind == TokenKind::Login
                    && token.expires_at.is_some_and(|at| at > self.clock.now_ms());
                Ok(usable.then(|| self.user_of(slot, &token)))
            })
            .await?;
        outcome.ok_or(Error::Forbidden(BAD_LOGIN_TOKEN))
    }

    fn user_of(self: &Arc<Self>, slot: Slot, token: &TokenRecord) -> User {
        User {
            users: self.clone(),
            id: token.user_id.clone(),
            key: EntityKey { slot, no: token.no },
        }
    }

    /// The record of a token.
    pub(crate) fn token(&self, slot: Slot, hash: Hash) -> Result<Option<Arc<TokenRecord>>> {
        if let Some(token) = self.caches.token(&hash) {
            return Ok(Some(token));
        }
        let fill = self.caches.before_read(slot);
        let Some(value) = self
            .log
            .engine()
            .get(Family::UserToken, &keys::token(slot, &hash))?
        else {
            return Ok(None);
        };
        let token: Arc<TokenRecord> = Arc::new(record::decode(&value)?);
        self.caches.put_token(&fill, hash, token.clone());
        Ok(Some(token))
    }
}

const UNKNOWN: Error = Error::UnknownToken { soft_logout: false };
const BAD_LOGIN_TOKEN: &str = "The login token is not valid";

impl User {
    /// Begins a session on a device; a session that the device had ends.
    pub async fn login(&self, login: Login) -> Result<Tokens> {
        device::check_name(login.initial_display_name.as_deref())?;
        let device_id = match login.device_id {
            Some(id) => id,
            None => device_id(self.users.random.as_ref()),
        };
        device::check_id(&device_id)?;
        self.write(|tx| {
            if account_of(tx, self.key)?.deactivated {
                return Err(Error::Deactivated);
            }
            let now = self.users.clock.now_ms();
            let mut device = match device::load(tx, self.key, &device_id)? {
                Some(device) => device,
                None => device::new_record(tx, self, &device_id, login.initial_display_name)?,
            };
            drop_tokens(tx, self.key.slot, device.take_tokens());
            device.last_seen_ts = Some(now);
            device.last_seen_ip = login.ip;
            device.user_agent = login.user_agent;
            let tokens = self.issue(tx, &device_id, &mut device, login.refreshable, false);
            device::store(tx, self.key, &device_id, &device);
            dehydrated::forget(tx, self.key, &device_id)?;
            Ok(tokens)
        })
        .await
    }

    /// Ends the session of a device and deletes the device.
    pub async fn logout(&self, device_id: &DeviceId) -> Result<()> {
        self.delete_devices(&[device_id.to_owned()]).await.map(|_| ())
    }

    /// Ends all sessions and deletes all devices; gives back which.
    pub async fn logout_all(&self) -> Result<Vec<OwnedDeviceId>> {
        self.write_anyway(|tx| {
            delete_login_tokens(tx, self.key)?;
            device::delete_all(tx, self, None)
        })
        .await
    }

    /// A token with which another client can log in once, and for how many milliseconds it is good.
    pub async fn issue_login_token(&self) -> Result<(String, u64)> {
        let now = self.users.clock.now_ms();
        let lifetime = self.users.settings.login_token_lifetime_ms;
        let (text, hash) = token::make(self.users.random.as_ref(), TokenKind::Login, self.key.slot);
        self.write(|tx| {
            let (mut open, ended): (Vec<_>, Vec<_>) = login_tokens(tx, self.key)?
                .into_iter()
                .partition(|(_, at)| *at > now);
            for (hash, _) in ended {
                tx.delete(Family::UserToken, keys::token(self.key.slot, &hash));
            }
            if open.len() >= LOGIN_TOKENS_MAX {
                return Err(Error::TooMany("Too many unused login tokens"));
            }
            open.push((hash, now + lifetime));
            put_login_tokens(tx, self.key, &open);
            let no_device = OwnedDeviceId::from("");
            self.put_token(
                tx,
                hash,
                TokenKind::Login,
                &no_device,
                Some(now + lifetime),
                false,
            );
            Ok(())
        })
        .await?;
        Ok((text, lifetime))
    }

    fn issue(
        &self,
        tx: &mut Tx<'_>,
        device_id: &DeviceId,
        device: &mut DeviceRecord,
        refreshable: bool,
        fresh: bool,
    ) -> Tokens {
        let random = self.users.random.as_ref();
        let lifetime = refreshable.then_some(self.users.settings.access_token_lifetime_ms);
        let expires_at = lifetime.map(|ms| self.users.clock.now_ms() + ms);
        let (access_token, access) = token::make(random, TokenKind::Access, self.key.slot);
        self.put_token(tx, access, TokenKind::Access, device_id, expires_at, fresh);
        device.access = Some(access);
        let refresh_token = refreshable.then(|| {
            let (text, refresh) = token::make(random, TokenKind::Refresh, self.key.slot);
            self.put_token(tx, refresh, TokenKind::Refresh, device_id, None, false);
            device.refresh = Some(refresh);
            text
        });
        Tokens {
            device_id: device_id.to_owned(),
            access_token,
            refresh_token,
            expires_in_ms: lifetime,
        }
    }

    pub(crate) fn put_token(
        &self,
        tx: &mut Tx<'_>,
        hash: Hash,
        kind: TokenKind,
        device_id: &DeviceId,
        expires_at: Option<u64>,
        fresh: bool,
    ) {
        let (user_id, no, device_id) = (self.id.clone(), self.key.no, device_id.to_owned());
        let token = TokenRecord {
            user_id,
            no,
            device_id,
            kind,
            expires_at,
            fresh,
        };
        tx.put(
            Family::UserToken,
            keys::token(self.key.slot, &hash),
            record::encode(&token),
        );
    }
}

impl Session {
    /// The user's id.
    pub fn user_id(&self) -> &UserId {
        self.user.id()
    }

    /// Notes that the session was used; written down later, together with others.
    pub fn seen(&self, ip: Option<IpAddr>, user_agent: Option<&str>) {
        let users = &self.user.users;
        users.last_seen.note(self, ip, user_agent, users.clock.now_ms());
    }
}

/// The first use of a refreshed access token.
fn confirm(tx: &mut Tx<'_>, key: EntityKey, hash: Hash) -> Result<()> {
    let row = keys::token(key.slot, &hash);
    let Some(value) = tx.get(Family::UserToken, &row)? else {
        return Err(UNKNOWN);
    };
    let mut token: TokenRecord = record::decode(&value)?;
    if !token.fresh {
        return Ok(());
    }
    token.fresh = false;
    tx.put(Family::UserToken, row, record::encode(&token));
    tx.token_changed(hash);
    if let Some(mut device) = device::load(tx, key, &token.device_id)? {
        drop_tokens(
            tx,
            key.slot,
            [device.old_access.take(), device.old_refresh.take()],
        );
        device::store(tx, key, &token.device_id, &device);
    }
    Ok(())
}

/// Deletes tokens.
pub(crate) fn drop_tokens(tx: &mut Tx<'_>, slot: Slot, hashes: impl IntoIterator<Item = Option<Hash>>) {
    for hash in hashes.into_iter().flatten() {
        tx.delete(Family::UserToken, keys::token(slot, &hash));
        tx.token_changed(hash);
    }
}

/// Deletes a user's unused login tokens.
pub(crate) fn delete_login_tokens(tx: &mut Tx<'_>, key: EntityKey) -> Result<()> {
    for (hash, _) in login_tokens(tx, key)? {
        tx.delete(Family::UserToken, keys::token(key.slot, &hash));
    }
    put_login_tokens(tx, key, &[]);
    Ok(())
}

fn login_tokens(tx: &Tx<'_>, key: EntityKey) -> Result<Vec<(Hash, u64)>> {
    let value = tx.get(Family::User, &keys::user(key, field::LOGIN_TOKENS, ""))?;
    Ok(value
        .as_deref()
        .map(record::decode)
        .transpose()?
        .unwrap_or_default())
}

fn put_login_tokens(tx: &mut Tx<'_>, key: EntityKey, tokens: &[(Hash, u64)]) {
    let row = keys::user(key, field::LOGIN_TOKENS, "");
    if tokens.is_empty() {
        tx.delete(Family::User, row);
    } else {
        tx.put(Family::User, row, record::encode(tokens));
    }
}

/// A new device id: capital letters, which people read aloud more easily.
fn device_id(random: &dyn Random) -> OwnedDeviceId {
    let mut bytes = [0u8; DEVICE_ID_CHARS];
    random.fill(&mut bytes);
    let letters: String = bytes.iter().map(|b| char::from(b'A' + b % 26)).collect();
    OwnedDeviceId::from(letters)
}
