//! Accounts: creating them, their password, and the states an administrator or the user puts them in.

use std::sync::Arc;

use hearth_core::random::alphanumeric;
use hearth_storage::{EntityKind, Family, Reader, record, slot_of};
use ruma::{DeviceId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::cross_signing;
use crate::device;
use crate::directory::SearchUpdate;
use crate::error::{Error, Result};
use crate::key_backup;
use crate::keys::{self, field};
use crate::openid;
use crate::password;
use crate::profile::Profile;
use crate::registration::PendingUse;
use crate::session;
use crate::user::{User, Users};
use crate::write::Tx;

/// A user's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// When it was created.
    pub created_ts: u64,
    /// The password's argon2id hash; none for users who cannot log in with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) password_hash: Option<String>,
    /// Whether the user may use the admin endpoints.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// Whether the account was deactivated: it can never be used again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deactivated: bool,
    /// Whether the user asked to be forgotten as far as possible.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
    /// Whether an administrator locked the account.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// Whether an administrator suspended the account.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// The id of the application service that owns the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appservice: Option<String>,
    /// Whether this is a guest, who has no password and may do little.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guest: bool,
}

impl Account {
    /// Whether there is a password to log in with.
    pub fn has_password(&self) -> bool {
        self.password_hash.is_some()
    }
}

/// What an account is created with.
#[derive(Clone, Debug, Default)]
pub struct NewAccount {
    /// The password, if the user is to log in with one.
    pub password: Option<String>,
    /// Whether the user is an administrator.
    pub admin: bool,
    /// The owning application service's id.
    pub appservice: Option<String>,
    /// The first display name: an empty one is none at all, and without one it is the localpart, as the settings have it.
    pub displayname: Option<String>,
    /// Whether this is a guest.
    pub guest: bool,
}

/// How many characters a generated user name has.
const GENERATED_LOCALPART_CHARS: usize = 12;

impl Users {
    /// Whether a new account may have this id: local, of the right grammar, never used.
    pub fn check_available(self: &Arc<Self>, id: &UserId) -> Result<()> {
        if self.server_user_id() == Some(id) {
            return Err(Error::UserInUse);
        }
        self.check_name(id)?;
        match hearth_storage::entity(self.log.engine().as_ref(), EntityKind::User, id.as_str())? {
            Some(_) => Err(Error::UserInUse),
            None => Ok(()),
        }
    }

    /// A name for someone who did not choose one.
    pub fn generate_localpart(&self) -> String {
        alphanumeric(self.random.as_ref(), GENERATED_LOCALPART_CHARS).to_ascii_lowercase()
    }

    /// Creates an account.
    pub async fn create(self: &Arc<Self>, id: &UserId, mut new: NewAccount) -> Result<User> {
        self.check_available(id)?;
        if self.settings.displaynames && !new.guest {
            new.displayname.get_or_insert_with(|| id.localpart().to_owned());
        }
        self.create_account(id, new).await
    }

    /// The user that the server itself speaks as, made when it first speaks; none if the settings name none. An
    /// account that a person has is refused: that person would speak for the server.
    pub async fn server_user(self: &Arc<Self>) -> Result<Option<User>> {
        let Some(id) = self.server_user_id() else {
            return Ok(None);
        };
        let user = match self.get(id)? {
            Some(user) => user,
            None => return self.create_account(id, NewAccount::default()).await.map(Some),
        };
        let account = user.account()?;
        if account.has_password() || account.appservice.is_some() || account.deactivated {
            return Err(Error::Forbidden(
                "The user of server notices is an account that somebody has or had; another localpart must be configured",
            ));
        }
        Ok(Some(user))
    }

    async fn create_account(self: &Arc<Self>, id: &UserId, new: NewAccount) -> Result<User> {
        let password_hash = match new.password {
            Some(password) => Some(self.hash_password(password).await?),
            None => None,
        };
        let account = Account {
            created_ts: self.clock.now_ms(),
            password_hash,
            admin: new.admin,
            deactivated: false,
            erased: false,
            locked: false,
            suspended: false,
            appservice: new.appservice,
            guest: new.guest,
        };
        let mut profile = Profile::default();
        if let Some(name) = new.displayname.filter(|name| !name.is_empty()) {
            profile.set("displayname", name.into())?;
        }
        let slot = slot_of(id.as_str());
        let key = self
            .lanes
            .write(slot, |tx| {
                let key = self
                    .log
                    .allocate(EntityKind::User, id.as_str(), tx.batch())
                    .map_err(|error| match error {
                        hearth_storage::Error::Exists => Error::UserInUse,
                        other => other.into(),
                    })?;
                tx.set_user(id, key);
                put_account(tx, key, &account)?;
                tx.put(
                    Family::User,
                    keys::user(key, field::PROFILE, ""),
                    record::encode(&profile),
                );
                // Guests are not found by others: they come and go.
                if !account.guest {
                    tx.outbox(SearchUpdate::new(id, Some(&profile)).row(&self.settings.server_name));
                }
                Ok(key)
            })
            .await?;
        Ok(User {
            users: self.clone(),
            id: id.to_owned(),
            key,
        })
    }

    /// Makes a guest an ordinary user with a password ("Guest Access"). A registration token is used up, where there is one.
    pub async fn upgrade_guest(
        self: &Arc<Self>,
        guest: &User,
        password: String,
        token: Option<PendingUse>,
    ) -> Result<()> {
        let hash = self.hash_password(password).await?;
        let token = token.map(PendingUse::into_token);
        let grant = match &token {
            Some(token) => Some(self.registration_tokens().consume(token).await?),
            None => None,
        };
        let upgraded = guest
            .write(|tx| {
                let mut account = account_of(tx, guest.key)?;
                if !account.guest || account.deactivated {
                    return Err(Error::Forbidden("This is not a guest"));
                }
                account.guest = false;
                account.admin = grant.is_some_and(|grant| grant.admin);
                account.password_hash = Some(hash);
                put_account(tx, guest.key, &account)?;
                let profile = guest.profile()?;
                tx.outbox(SearchUpdate::new(&guest.id, Some(&profile)).row(&self.settings.server_name));
                Ok(())
            })
            .await;
        if let (Err(_), Some(token)) = (&upgraded, &token) {
            self.registration_tokens().give_back(token).await?;
        }
        upgraded
    }

    /// Creates an account against a registration token: the use is counted first, and given back if the account
    /// could not be created. The bootstrap token makes its user an administrator.
    pub async fn create_with_token(
        self: &Arc<Self>,
        id: &UserId,
        mut new: NewAccount,
        token: PendingUse,
    ) -> Result<User> {
        let token = token.into_token();
        let grant = self.registration_tokens().consume(&token).await?;
        new.admin |= grant.admin;
        match self.create(id, new).await {
            Ok(user) => Ok(user),
            Err(error) => {
                self.registration_tokens().give_back(&token).await?;
                Err(error)
            }
        }
    }

    /// The user with this id if the password is right. Unknown users cost as much time as known ones.
    pub async fn check_password(self: &Arc<Self>, id: &UserId, password: &str) -> Result<User> {
        let Some(user) = self.get(id)? else {
            let _ = self.hash_password(password.to_owned()).await;
            return Err(Error::WrongPassword);
        };
        if user.account()?.deactivated {
            return Err(Error::Deactivated);
        }
        if user.verify_password(password).await? {
            Ok(user)
        } else {
            Err(Error::WrongPassword)
        }
    }

    /// Refuses passwords that do not meet the rules (M_WEAK_PASSWORD).
    pub fn check_password_rules(&self, password: &str) -> Result<()> {
        password::check_rules(password, self.settings.password_min_chars)
    }

    async fn hash_password(&self, password: String) -> Result<String> {
        let (cost, random) = (self.settings.password_cost, self.random.clone());
        self.pool
            .run(move || password::hash(cost, random.as_ref(), &password))
            .await
    }

    fn check_name(&self, id: &UserId) -> Result<()> {
        if !self.is_local(id) {
            return Err(Error::InvalidUsername("The user id is not of this server"));
        }
        if id.as_str().len() > hearth_core::limits::ID_MAX_BYTES {
            return Err(Error::InvalidUsername("The user id is longer than 255 bytes"));
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._=-/+".contains(&b);
        if id.localpart().is_empty() || !id.localpart().bytes().all(allowed) {
            return Err(Error::InvalidUsername(
                "A user name may contain only a-z, 0-9, and ._=-/+",
            ));
        }
        Ok(())
    }
}

impl User {
    /// Whether this is the user's password.
    pub async fn verify_password(&self, password: &str) -> Result<bool> {
        let Some(stored) = self.account()?.password_hash.clone() else {
            return Ok(false);
        };
        let password = password.to_owned();
        Ok(self
            .users
            .pool
            .run(move || password::verify(&stored, &password))
            .await)
    }

    /// Sets a new password, and ends all sessions but those of `keep` if `logout_others` is set. Gives back the
    /// devices that were deleted.
    pub async fn set_password(
        &self,
        password: &str,
        logout_others: bool,
        keep: Option<&DeviceId>,
    ) -> Result<Vec<ruma::OwnedDeviceId>> {
        self.users.check_password_rules(password)?;
        let hash = self.users.hash_password(password.to_owned()).await?;
        self.write(|tx| {
            let mut account = account_of(tx, self.key)?;
            if account.deactivated {
                return Err(Error::Deactivated);
            }
            account.password_hash = Some(hash);
            put_account(tx, self.key, &account)?;
            if logout_others {
                // Nor does anybody begin another with what the old password gave.
                session::delete_login_tokens(tx, self.key)?;
                device::delete_all(tx, self, keep)
            } else {
                Ok(Vec::new())
            }
        })
        .await
    }

    /// Ends the account: sessions, devices, password, profile, keys, backups and account data go away; the name stays taken.
    /// Leaving the rooms is the caller's, who can reach them.
    pub async fn deactivate(&self, erase: bool) -> Result<()> {
        let server_name = &self.users.settings.server_name;
        self.write(|tx| {
            let mut account = account_of(tx, self.key)?;
            account.deactivated = true;
            account.erased |= erase;
            account.admin = false;
            account.password_hash = None;
            if account.erased {
                tx.put(Family::View, erased_row(&self.id), vec![ERASED_TAG]);
            }
            put_account(tx, self.key, &account)?;
            device::delete_all(tx, self, None)?;
            self.drop_pushers(tx, None)?;
            cross_signing::remove(tx, self.key)?;
            key_backup::remove(tx, self.key)?;
            session::delete_login_tokens(tx, self.key)?;
            openid::delete_all(tx, self.key)?;
            tx.put(
                Family::User,
                keys::user(self.key, field::PROFILE, ""),
                record::encode(&Profile::default()),
            );
            tx.changed(Change::Profile)?;
            tx.delete(Family::User, keys::user(self.key, field::PRESENCE, ""));
            for family in [Family::UserData, Family::ThreadSubscription] {
                for (row, _) in tx.scan(family, &self.key.to_bytes())? {
                    tx.delete(family, row);
                }
            }
            tx.outbox(SearchUpdate::new(&self.id, None).row(server_name));
            Ok(())
        })
        .await?;
        self.users.presence().forget(&self.id);
        Ok(())
    }

    /// Locks or unlocks the account: a locked one may only log out.
    pub async fn set_locked(&self, locked: bool) -> Result<()> {
        self.change_account(|account| account.locked = locked).await
    }

    /// Suspends the account or ends the suspension: a suspended one may read, and leave rooms.
    pub async fn set_suspended(&self, suspended: bool) -> Result<()> {
        self.change_account(|account| account.suspended = suspended).await
    }

    /// Makes the user an administrator, or an ordinary user.
    pub async fn set_admin(&self, admin: bool) -> Result<()> {
        self.change_account(|account| account.admin = admin).await
    }

    async fn change_account(&self, change: impl FnOnce(&mut Account) + Send) -> Result<()> {
        self.write(|tx| {
            let mut account = account_of(tx, self.key)?;
            let before = account.clone();
            change(&mut account);
            if account != before {
                put_account(tx, self.key, &account)?;
            }
            Ok(())
        })
        .await
    }
}

/// The view of those who asked to be erased: a row a user.
const ERASED: &str = "erased";
/// The tag of its rows.
const ERASED_TAG: u8 = 1;

fn erased_row(user: &UserId) -> Vec<u8> {
    keys::view(ERASED, user.as_bytes())
}

/// Whether a user asked to be erased.
pub fn is_erased(reader: &dyn Reader, user: &UserId) -> Result<bool> {
    Ok(reader.get(Family::View, &erased_row(user))?.is_some())
}

/// All users who asked to be erased.
pub fn erased_users(reader: &dyn Reader) -> Result<Vec<OwnedUserId>> {
    let start = keys::view(ERASED, &[]);
    let end = hearth_storage::prefix_end(&start);
    let mut found = Vec::new();
    reader.scan(Family::View, &start, &end, false, &mut |row, _| {
        let user = std::str::from_utf8(&row[start.len()..]).ok();
        found.extend(user.and_then(|user| OwnedUserId::try_from(user).ok()));
        true
    })?;
    Ok(found)
}

/// The account as the operation sees it.
pub(crate) fn account_of(tx: &Tx<'_>, key: hearth_storage::EntityKey) -> Result<Account> {
    let value = tx
        .get(Family::User, &keys::user(key, field::ACCOUNT, ""))?
        .ok_or(Error::NotFound("User"))?;
    Ok(record::decode(&value)?)
}

fn put_account(tx: &mut Tx<'_>, key: hearth_storage::EntityKey, account: &Account) -> Result<()> {
    tx.put(
        Family::User,
        keys::user(key, field::ACCOUNT, ""),
        record::encode(account),
    );
    tx.changed(Change::Account)
}
