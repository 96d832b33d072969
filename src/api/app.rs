//! What every handler has at hand.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use hearth_appservice::{Registration, Registrations};
use hearth_core::error::MatrixError;
use hearth_core::http::SharedOutbound;
use hearth_core::{Config, SharedClock, SharedRandom};
use hearth_federation::Federation;
use hearth_media::{MediaStore, Previews};
use hearth_rooms::Rooms;
use hearth_search::Search;
use hearth_sync::SyncEngine;
use hearth_users::{Account, NewAccount, ProfileChange, User, Users};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, RoomOrAliasId, UserId};

use crate::admin::nonces::Nonces;
use crate::error::Result;
use crate::extract::Auth;
use crate::ratelimit::RateLimits;

/// What the server hands over when it builds the API.
pub struct Parts {
    /// The configuration.
    pub config: Arc<Config>,
    /// This server's name, parsed once.
    pub server_name: OwnedServerName,
    /// The time.
    pub clock: SharedClock,
    /// Random bytes.
    pub random: SharedRandom,
    /// The local users.
    pub users: Arc<Users>,
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// The sync engine.
    pub sync: Arc<SyncEngine>,
    /// The application services.
    pub appservices: Arc<Registrations>,
    /// Requests to application services.
    pub appservice_outbound: SharedOutbound,
    /// Other homeservers.
    pub federation: Arc<Federation>,
    /// The media repository.
    pub media: MediaStore,
    /// Previews of web pages, if the operator wants them.
    pub previews: Option<Previews>,
    /// Search in messages, unless the operator switched it off.
    pub search: Option<Arc<Search>>,
    /// The public key by which services of Web Push know this server.
    pub web_push_key: String,
    /// What the account endpoints need of rooms.
    pub room_links: Arc<dyn RoomLinks>,
}

/// The state of the API. Everything in it is shared; handlers get it as `State<Arc<App>>`.
pub struct App {
    /// The configuration.
    pub config: Arc<Config>,
    /// This server's name.
    pub server_name: OwnedServerName,
    /// The time.
    pub clock: SharedClock,
    /// Random bytes.
    pub random: SharedRandom,
    /// The local users.
    pub users: Arc<Users>,
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// The sync engine.
    pub sync: Arc<SyncEngine>,
    /// The application services.
    pub appservices: Arc<Registrations>,
    /// Requests to application services.
    pub appservice_outbound: SharedOutbound,
    /// Other homeservers.
    pub federation: Arc<Federation>,
    /// The media repository.
    pub media: MediaStore,
    /// Previews of web pages, if the operator wants them.
    pub previews: Option<Previews>,
    /// Search in messages, unless the operator switched it off.
    pub search: Option<Arc<Search>>,
    /// The public key by which services of Web Push know this server.
    pub web_push_key: String,
    /// What the account endpoints need of rooms.
    pub room_links: Arc<dyn RoomLinks>,
    /// How often who may call what.
    pub limits: RateLimits,
    /// How long answers take.
    pub latencies: crate::latency::Latencies,
    /// Nonces given out for registration by shared secret.
    pub nonces: Nonces,
    /// The places for answers with the whole state of a room.
    pub large_answers: hearth_core::places::Places,
    /// The same for clients.
    pub large_client_answers: hearth_core::places::Places,
    /// Held while a user's notices room is found or made.
    pub notices: tokio::sync::Mutex<()>,
}

/// What the endpoints of accounts need of rooms. The API calls the first two after the account's own
/// change is durable and before the request is answered.
#[async_trait]
pub trait RoomLinks: Send + Sync {
    /// The display name or the avatar changed: the member events of joined rooms follow.
    async fn profile_changed(&self, user: &UserId, change: &ProfileChange) -> Result<()>;
    /// The account is being deactivated: it leaves its rooms, and gives back invitations.
    async fn leave_all(&self, user: &UserId) -> Result<()>;
    /// The rooms to which a user is joined; of a user of another server those that are known here.
    fn joined_rooms(&self, user: &UserId) -> Result<BTreeSet<OwnedRoomId>>;
    /// Whether everybody may know who is in a room: it is public, or world-readable.
    fn is_open(&self, room: &RoomId) -> bool;
    /// Whether two users are joined to the same room.
    fn share_a_room(&self, one: &UserId, other: &UserId) -> bool;
}

impl App {
    /// The state from its parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            config,
            server_name,
            clock,
            random,
            users,
            rooms,
            sync,
            appservices,
            appservice_outbound,
            federation,
            media,
            previews,
            search,
            web_push_key,
            room_links,
        } = parts;
        Arc::new(Self {
            limits: RateLimits::new(&config, clock.clone()),
            latencies: crate::latency::Latencies::default(),
            nonces: Nonces::new(clock.clone(), random.clone()),
            large_answers: crate::federation::large::places(),
            large_client_answers: crate::client::large::places(),
            notices: tokio::sync::Mutex::default(),
            config,
            server_name,
            clock,
            random,
            users,
            rooms,
            sync,
            appservices,
            appservice_outbound,
            federation,
            media,
            previews,
            search,
            web_push_key,
            room_links,
        })
    }

    /// The largest body of a request that is no upload.
    pub fn max_request_bytes(&self) -> usize {
        usize::try_from(self.config.max_request_bytes).unwrap_or(usize::MAX)
    }

    /// Whether a user is an administrator, by his account or by the configuration.
    pub fn is_admin(&self, user: &UserId, account: &Account) -> bool {
        account.admin || self.config.admins.iter().any(|admin| admin == user.as_str())
    }

    /// The handle on a local user who must exist.
    pub fn user(&self, user: &UserId) -> Result<User> {
        let found = self.users.get(user)?;
        Ok(found.ok_or_else(|| MatrixError::not_found("There is no such user"))?)
    }

    /// A user id of this server from what a person typed: a whole id or a localpart, in any case.
    pub fn local_user_id(&self, typed: &str) -> Result<OwnedUserId, MatrixError> {
        let lower = typed.to_lowercase();
        let whole = if lower.starts_with('@') {
            lower
        } else {
            format!("@{lower}:{}", self.server_name)
        };
        let invalid = |_| MatrixError::invalid_username("This is not a valid user name");
        UserId::parse(whole).map_err(invalid)
    }

    /// The room that an id or an alias of this server names.
    pub fn room_id_of(&self, target: &RoomOrAliasId) -> Result<OwnedRoomId> {
        if let Ok(room_id) = <&RoomId>::try_from(target) {
            return Ok(room_id.to_owned());
        }
        let alias = <&RoomAliasId>::try_from(target)
            .map_err(|_| MatrixError::invalid_param("This is neither a room id nor a room alias"))?;
        let found = self.rooms.alias(alias)?;
        Ok(found
            .ok_or_else(|| MatrixError::not_found("There is no such alias"))?
            .room_id)
    }

    /// Whether the user has forgotten a room.
    pub fn is_forgotten(&self, user: &UserId, room: &RoomId) -> Result<bool> {
        let Some(user) = self.users.get(user)? else {
            return Ok(false);
        };
        Ok(user.room(room)?.is_some_and(|entry| entry.forgotten))
    }

    /// Refuses aliases in the namespace of an application service that is not the one who asks.
    pub fn check_alias_owner(&self, auth: &Auth, alias: &RoomAliasId) -> Result<(), MatrixError> {
        self.appservices.check_alias(auth.appservice.as_deref(), alias)
    }

    /// Whether there is such a user of this server. The own user of an application service is there from the beginning: it is
    /// made where somebody asks for it before the application service acts.
    pub async fn has_user(&self, user: &UserId) -> Result<bool> {
        if self.users.get(user)?.is_some() {
            return Ok(true);
        }
        let is_sender = |one: &&Arc<Registration>| one.sender == user;
        match self.appservices.all().iter().find(is_sender) {
            Some(appservice) => self.make_appservice_sender(appservice).await.map(|_| true),
            None => Ok(false),
        }
    }

    /// Makes the own user of an application service when it first acts.
    pub async fn make_appservice_sender(&self, appservice: &Registration) -> Result<User> {
        let new = NewAccount {
            appservice: Some(appservice.id.clone()),
            ..NewAccount::default()
        };
        match self.users.create(&appservice.sender, new).await {
            // Another request of the application service was quicker.
            Err(hearth_users::Error::UserInUse) => self.user(&appservice.sender),
            made => Ok(made?),
        }
    }
}
