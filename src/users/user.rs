//! The registry of local users, and the handle on one.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_cluster::Cluster;
use hearth_core::{Pool, SharedClock, SharedRandom, Shutdown};
use hearth_storage::{Engine, EntityKey, EntityKind, Family, Log, Position, Reader, record, slot_of};
use ruma::{OwnedServerName, OwnedUserId, UserId};

use crate::account::Account;
use crate::cache::{Caches, Known};
use crate::data;
use crate::delayed::DelayedEvents;
use crate::device::LastSeen;
use crate::directory::Directory;
use crate::e2ee::to_device::ToDeviceHandler;
use crate::error::{Error, Result};
use crate::keys::{self, field, op};
use crate::password::PasswordCost;
use crate::presence::Presence;
use crate::profile::Profile;
use crate::push_rules::RulesCache;
use crate::pusher::Pushing;
use crate::registration::RegistrationTokens;
use crate::report::Reports;
use crate::room_list::MembershipHandler;
use crate::uia::Uia;
use crate::view::View;
use crate::write::{Lanes, Tx, UserNote};

/// What this crate takes from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server part of local user ids.
    pub server_name: OwnedServerName,
    /// What a password hash costs.
    pub password_cost: PasswordCost,
    /// How many characters a new password must have at least.
    pub password_min_chars: usize,
    /// How long an access token that can be refreshed is good.
    pub access_token_lifetime_ms: u64,
    /// How long a token of `login/get_token` is good.
    pub login_token_lifetime_ms: u64,
    /// How many bytes of memory the caches may take.
    pub cache_bytes: u64,
    /// The user that the server itself speaks as; nobody can register the name.
    pub server_user: Option<OwnedUserId>,
    /// Whether presence is kept and told.
    pub presence: bool,
    /// Whether new users who are given no display name have their localpart as one.
    pub displaynames: bool,
}

impl Settings {
    /// The defaults for a server.
    pub fn new(server_name: OwnedServerName) -> Self {
        Self {
            server_name,
            password_cost: PasswordCost::default(),
            password_min_chars: hearth_core::limits::PASSWORD_MIN_CHARS,
            access_token_lifetime_ms: 60 * 60 * 1000,
            login_token_lifetime_ms: 2 * 60 * 1000,
            cache_bytes: 16 << 20,
            server_user: None,
            presence: true,
            displaynames: true,
        }
    }

    /// The defaults, with passwords that are cheap to hash: for tests.
    pub fn for_tests(server_name: OwnedServerName) -> Self {
        Self {
            password_cost: PasswordCost::cheap(),
            ..Self::new(server_name)
        }
    }
}

/// All local users.
pub struct Users {
    pub(crate) log: Arc<Log>,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
    pub(crate) pool: Pool,
    pub(crate) settings: Settings,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) cluster: Arc<Cluster>,
    /// Where work runs that nobody waits for.
    pub(crate) chores: Pool,
    pub(crate) caches: Arc<Caches>,
    pub(crate) last_seen: LastSeen,
    pub(crate) push_rules: RulesCache,
    pub(crate) pushing: Arc<Pushing>,
    pub(crate) delayed: Arc<DelayedEvents>,
    presence: Arc<Presence>,
    uia: Uia,
    registration_tokens: RegistrationTokens,
    reports: Reports,
    directory: Arc<Directory>,
}

/// One local user. Cheap to clone; it does not show where the user's shard is.
#[derive(Clone)]
pub struct User {
    pub(crate) users: Arc<Users>,
    pub(crate) id: OwnedUserId,
    pub(crate) key: EntityKey,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("User").field(&self.id).finish()
    }
}

impl Users {
    /// Opens the registry and registers its outbox handlers with the cluster.
    pub fn new(
        log: Arc<Log>,
        cluster: Arc<Cluster>,
        clock: SharedClock,
        random: SharedRandom,
        pool: Pool,
        settings: Settings,
    ) -> Arc<Self> {
        let lanes = Arc::new(Lanes::new(log.clone(), cluster.clone()));
        let caches = Arc::new(Caches::new(settings.cache_bytes));
        let stale = caches.clone();
        log.on_publish(Box::new(move |published| {
            if let Some(note) = published
                .note
                .as_ref()
                .and_then(|note| note.downcast_ref::<UserNote>())
            {
                stale.published(note);
            }
        }));
        let presence = Arc::new(Presence::new(clock.clone(), random.clone(), settings.presence));
        let directory = Arc::new(Directory::new(
            log.clone(),
            lanes.clone(),
            settings.server_name.clone(),
        ));
        let users = Arc::new(Self {
            last_seen: LastSeen::default(),
            push_rules: RulesCache::default(),
            pushing: Arc::new(Pushing::new(log.clone(), lanes.clone())),
            delayed: Arc::new(DelayedEvents::new(
                log.clone(),
                lanes.clone(),
                clock.clone(),
                random.clone(),
            )),
            uia: Uia::new(log.clone(), lanes.clone(), clock.clone(), random.clone()),
            registration_tokens: RegistrationTokens::new(
                log.clone(),
                lanes.clone(),
                clock.clone(),
                random.clone(),
            ),
            reports: Reports::new(
                log.clone(),
                lanes.clone(),
                random.clone(),
                settings.server_name.clone(),
            ),
            log,
            clock,
            random,
            chores: pool.beside(1),
            pool,
            settings,
            lanes,
            cluster: cluster.clone(),
            caches,
            presence,
            directory,
        });
        users.presence.set_loader(&users);
        cluster.register(op::MEMBERSHIP, Arc::new(MembershipHandler::new(&users)));
        cluster.register(op::TO_DEVICE, Arc::new(ToDeviceHandler::new(&users)));
        cluster.register(op::USER_SEARCH, users.directory.clone());
        cluster.register(op::PUSHER, users.pushing.clone());
        users
    }

    /// Starts the tasks that run beside the requests: presence timers, writing down when devices were seen, and removing
    /// authentications that nobody finished.
    pub fn start(self: &Arc<Self>, shutdown: &Shutdown) {
        self.presence.start(shutdown);
        self.start_last_seen(shutdown);
        self.start_forgetting(shutdown);
        self.start_uia_sweep(shutdown);
    }

    /// Whether a user id belongs to this server.
    pub fn is_local(&self, id: &UserId) -> bool {
        id.server_name() == self.settings.server_name
    }

    /// The user with this id, also one that was deactivated.
    pub fn get(self: &Arc<Self>, id: &UserId) -> Result<Option<User>> {
        Ok(self.known(id)?.map(|known| User {
            users: self.clone(),
            id: id.to_owned(),
            key: known.key,
        }))
    }

    /// The id of the user that the server itself speaks as.
    pub fn server_user_id(&self) -> Option<&UserId> {
        self.settings.server_user.as_deref()
    }

    /// Presence of all local users.
    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// What users have asked to be sent later.
    pub fn delayed(&self) -> &Arc<DelayedEvents> {
        &self.delayed
    }

    /// The sessions of user-interactive authentication.
    pub fn uia(&self) -> &Uia {
        &self.uia
    }

    /// Tokens that allow a registration.
    pub fn registration_tokens(&self) -> &RegistrationTokens {
        &self.registration_tokens
    }

    /// What users reported.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// The user directory.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// The injected clock's time.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// What is cached about a user, read if need be.
    pub(crate) fn known(&self, id: &UserId) -> Result<Option<Arc<Known>>> {
        if !self.is_local(id) {
            return Ok(None);
        }
        if let Some(known) = self.caches.user(id) {
            return Ok(Some(known));
        }
        let fill = self.caches.before_read(slot_of(id.as_str()));
        let Some(known) = self.read_known(id)? else {
            return Ok(None);
        };
        let known = Arc::new(known);
        self.caches.put_user(&fill, id.to_owned(), known.clone());
        Ok(Some(known))
    }

    fn read_known(&self, id: &UserId) -> Result<Option<Known>> {
        let engine = self.log.engine();
        let Some(key) = hearth_storage::entity(engine.as_ref(), EntityKind::User, id.as_str())? else {
            return Ok(None);
        };
        let rows = [
            keys::user(key, field::ACCOUNT, ""),
            keys::user(key, field::PROFILE, ""),
        ];
        let rows = engine.multi_get(Family::User, &rows)?;
        let [account, profile] = rows.as_slice() else {
            return Err(Error::Internal(
                "a read of two keys gave another number of values".to_owned(),
            ));
        };
        let Some(account) = account else {
            return Ok(None);
        };
        let ignored = engine.get(Family::UserData, &keys::data(key, "", data::IGNORED_USERS))?;
        let sizes = [Some(account), profile.as_ref(), ignored.as_ref()];
        let weight = sizes
            .into_iter()
            .flatten()
            .map(|bytes| 2 * bytes.len() as u64)
            .sum();
        Ok(Some(Known {
            key,
            account: Arc::new(record::decode(account)?),
            profile: Arc::new(
                profile
                    .as_deref()
                    .map(record::decode)
                    .transpose()?
                    .unwrap_or_default(),
            ),
            ignored: Arc::new(data::ignored_users(ignored.as_deref())),
            weight,
        }))
    }
}

impl User {
    /// The user's id.
    pub fn id(&self) -> &UserId {
        &self.id
    }

    /// The user's entity: its slot says in which shard the user's positions count.
    pub fn key(&self) -> EntityKey {
        self.key
    }

    /// The registry.
    pub fn users(&self) -> &Arc<Users> {
        &self.users
    }

    /// The shard whose positions number this user's changes.
    pub fn shard(&self) -> hearth_storage::ShardId {
        self.users.log.shard_of(self.key.slot)
    }

    /// Up to where this user's changes are readable.
    pub fn position(&self) -> Position {
        self.users.log.published(self.shard())
    }

    /// The account record.
    pub fn account(&self) -> Result<Arc<Account>> {
        Ok(self.known()?.account.clone())
    }

    /// The profile.
    pub fn profile(&self) -> Result<Arc<Profile>> {
        Ok(self.known()?.profile.clone())
    }

    /// The users whom this user ignores.
    pub fn ignored_users(&self) -> Result<Arc<BTreeSet<OwnedUserId>>> {
        Ok(self.known()?.ignored.clone())
    }

    /// This user's data as the newest published state has it.
    pub fn now(&self) -> View<'_> {
        let engine: &dyn Engine = self.users.log.engine().as_ref();
        View::new(self.key, engine)
    }

    /// This user's data as a snapshot has it.
    pub fn view<'a>(&self, reader: &'a dyn Reader) -> View<'a> {
        View::new(self.key, reader)
    }

    pub(crate) fn known(&self) -> Result<Arc<Known>> {
        self.users.known(&self.id)?.ok_or(Error::NotFound("User"))
    }

    /// Runs one operation on this user: one batch.
    pub(crate) async fn write<T>(&self, build: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.users.log.check_writable()?;
        self.write_anyway(build).await
    }

    /// As [`User::write`], also where the disk is nearly full; see [`Lanes::write_anyway`].
    pub(crate) async fn write_anyway<T>(&self, build: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        let lanes = self.users.lanes.clone();
        lanes
            .write_anyway(self.key.slot, |tx| {
                tx.set_user(&self.id, self.key);
                build(tx)
            })
            .await
    }
}
