//! The configuration: its schema (this file), value types, loading, validation and the generated
//! example file. The doc comment of each key is its reference in `config/hearth.example.toml`.

use std::path::{Path, PathBuf};

use confique::Config as Schema;
use serde_json::{Map, Value};

mod example;
mod load;
mod types;
mod validate;

pub use load::ConfigError;
pub use types::{
    Api, FormerKey, ListenerConfig, LogFormat, Network, Policy, RateLimit, RegistrationMode, Secret,
    SupportContact, Who,
};
pub use validate::is_valid_server_name;

use types::byte_count;

/// Hearth's configuration.
///
/// Every key is optional and shown with its default, if it has one. Each can also be given by an
/// environment variable named HEARTH_ and the key in capitals, with _ for the dots of sections:
/// HEARTH_SERVER_NAME, HEARTH_RATE_LIMIT_SEND. The environment wins over the file. A value that is
/// not a plain text, number or true/false is written there as in this file; a list of texts may also
/// be given with commas. Sizes take a number of bytes or a text with a unit: "50 MiB".
/// `hearth check-config` checks a file without starting the server.
#[derive(Clone, Debug, Schema)]
pub struct Config {
    /// The name of this server: the part after the colon of user ids, such as example.org. It cannot
    /// be changed once there are users, because it is part of every id and signature.
    #[config(default = "localhost")]
    pub server_name: String,

    /// Folder for everything that must last: database, media and the signing key. It is created if
    /// it is missing. Back up the whole folder.
    #[config(default = "./data")]
    pub data_dir: PathBuf,

    /// Address of the main listener, plain HTTP: clients, health, well-known documents, federation, and
    /// metrics for programs on this machine. Put a reverse proxy with TLS before it, or use
    /// [[listeners]] to serve TLS yourself.
    #[config(default = "127.0.0.1:8008")]
    pub client_listen: String,

    /// Address of a listener for other servers, usually 0.0.0.0:8448. It serves TLS with
    /// tls_certificate and tls_key, which must be set.
    pub federation_listen: Option<String>,

    /// PEM file with the certificate chain for federation_listen, and for [[listeners]] that say
    /// tls = true without files of their own. It is read again when it changes.
    pub tls_certificate: Option<PathBuf>,

    /// PEM file with the private key that belongs to tls_certificate.
    pub tls_key: Option<PathBuf>,

    /// The address at which clients reach this server, such as "https://matrix.example.org". It is
    /// told to clients in .well-known/matrix/client and on the start page.
    pub public_base_url: Option<String>,

    /// Reverse proxies, as addresses or networks ("10.0.0.0/8"), whose X-Forwarded-For header is
    /// believed. Rate limits count the address found there.
    #[config(default = ["127.0.0.1", "::1"])]
    pub trusted_proxies: Vec<Network>,

    /// Who may register: "token" (with a registration token; the first start prints one), "open"
    /// (anyone: expect abuse on a public address) or "closed" (nobody but by
    /// registration_shared_secret and `hearth user create`).
    #[config(default = "token")]
    pub registration: RegistrationMode,

    /// Registration tokens that always work, any number of times, beside those made by administrators.
    #[config(default = [])]
    pub registration_tokens: Vec<Secret>,

    /// A secret with which programs create accounts at /_synapse/admin/v1/register. Without it that
    /// endpoint does not exist.
    pub registration_shared_secret: Option<Secret>,

    /// Whether a new account has its user name as its display name until the user sets another, so that people see "alice"
    /// and not "@alice:example.org". It holds for every way in which accounts are made, guests aside.
    #[config(default = true)]
    pub registration_displaynames: bool,

    /// Whether people may come without an account, as guests: they join rooms that are open to guests, read and send there,
    /// and little else. Anybody can become one at any time, so expect abuse on a public address.
    #[config(default = false)]
    pub guests: bool,

    /// Full user ids of administrators, beside those made so by other administrators.
    #[config(default = [])]
    pub admins: Vec<String>,

    /// The room version of new rooms when the client does not ask for one: "1" to "12".
    #[config(default = "12")]
    pub default_room_version: String,

    /// Whether presence (online, away, offline) is kept and told. Off saves work on large servers.
    #[config(default = true)]
    pub presence: bool,

    /// Whether a search for people finds every local user. Otherwise it finds those who share a room
    /// with the searcher or are in a public room.
    #[config(default = false)]
    pub user_directory_all_users: bool,

    /// Largest upload, in bytes.
    #[config(default = "50 MiB", deserialize_with = byte_count)]
    pub max_upload_bytes: u64,

    /// Largest body of any other request, in bytes.
    #[config(default = "2 MiB", deserialize_with = byte_count)]
    pub max_request_bytes: u64,

    /// Whether the old media addresses answer without an access token
    /// (/_matrix/media/v3/download and thumbnail). Old clients need them; anyone who knows the address of a
    /// file could then fetch it.
    #[config(default = false)]
    pub unauthenticated_media: bool,

    /// Memory for caches and the database together, in bytes. Connections and work in
    /// progress come on top, about 50 MiB on a small server.
    #[config(default = "512 MiB", deserialize_with = byte_count)]
    pub memory_limit: u64,

    /// When less than this is free on the data directory's disk, in bytes, writes are refused while
    /// reading and deleting go on. 0 turns the check off.
    #[config(default = "256 MiB", deserialize_with = byte_count)]
    pub disk_reserve_bytes: u64,

    /// Shards into which the data is split, 1 to 1024. It counts when the data directory is created and
    /// is ignored later. The default fits one machine as well as a later cluster.
    #[config(default = 16)]
    pub shards: u16,

    /// Most open connections over all listeners; more wait until one closes.
    #[config(default = 20_000)]
    pub max_connections: usize,

    /// Folder with registration files (*.yaml) of application services (bridges, bots), read at start.
    pub appservice_dir: Option<PathBuf>,

    /// PEM file with certificate authorities that are trusted for other servers, beside the public ones.
    pub federation_extra_ca: Option<PathBuf>,

    /// Whether requests to other machines may go to private and loopback addresses. Leave it off
    /// outside of test networks: a stranger could make this server call your internal services.
    #[config(default = false)]
    pub federation_allow_private_addresses: bool,

    /// Names of servers that are asked for other servers' signing keys when those do not answer.
    #[config(default = [])]
    pub trusted_key_servers: Vec<String>,

    /// Former signing keys of this server, so that what they signed stays valid: for keys of another server program that
    /// had this name before. Those replaced by `hearth rotate-signing-key` are known without it.
    /// [{ id = "ed25519:a_1", key = "<public key, unpadded base64>", expired_ts = 1700000000000 }]
    #[config(default = [])]
    pub old_verify_keys: Vec<FormerKey>,

    /// Whether rate limits hold at all; the limits are in [rate_limit].
    #[config(default = true)]
    pub rate_limits: bool,

    /// Policies that a person must accept to register, in order:
    /// [{ id = "privacy", version = "1.0", name = "Privacy policy", url = "https://example.org/privacy" }]
    #[config(default = [])]
    pub terms: Vec<Policy>,

    /// More listeners, any number. Each has an address and a list of what it serves: "client",
    /// "federation", "metrics", "health", "well_known". With tls = true it serves TLS, with its own
    /// tls_certificate and tls_key or those of the top level:
    /// [{ address = "0.0.0.0:8448", apis = ["client", "federation"], tls = true }]
    /// A listener with "metrics" shows them to everyone who reaches it.
    #[config(default = [])]
    pub listeners: Vec<ListenerConfig>,

    /// Rate limits.
    #[config(nested)]
    pub rate_limit: RateLimits,

    /// The documents under /.well-known/matrix/.
    #[config(nested)]
    pub well_known: WellKnown,

    /// What people may do with rooms.
    #[config(nested)]
    pub room: RoomDefaults,

    /// Sessions and passwords.
    #[config(nested)]
    pub session: Sessions,

    /// Search in messages. The words of messages, room names and topics that are not encrypted are kept in an index, in
    /// the folder "search" of the data directory. It can be deleted while the server is stopped: it is then built anew.
    #[config(nested)]
    pub message_search: MessageSearch,

    /// Previews of the web pages that messages link to. This server fetches the page and its picture, so that the page's
    /// server learns of this server and not of the people who read the message. Only addresses of the public internet are
    /// asked, whatever a page or a redirect says.
    #[config(nested)]
    pub url_preview: UrlPreview,

    /// Messages from the operator to users of this server. Administrators send them with
    /// POST /_synapse/admin/v1/send_server_notice. A user gets them in one room of his own, tagged m.server_notice: he is
    /// invited, can read there but not write, and cannot decline the invitation.
    #[config(nested)]
    pub server_notices: ServerNotices,

    /// A TURN server, through which calls go where the two sides cannot reach each other. It is a program of its own, such
    /// as coturn; clients are told where it is and how to log in.
    #[config(nested)]
    pub turn: Turn,

    /// The log that the server writes to its standard error output.
    #[config(nested)]
    pub log: Log,

    /// Proposals that are not in the Matrix specification yet, each with its number.
    #[config(nested)]
    pub experimental: Experimental,
}

/// Each limit lets `burst` requests through at once and `per_second` more each second, counted for each
/// user (for login and registration: for each address, and for each account that is tried; for
/// what other servers bring, as it says there). Administrators, and application services that say
/// so, are not limited.
#[derive(Clone, Debug, Schema)]
pub struct RateLimits {
    /// Attempts to log in.
    #[config(default = { "per_second": 0.2, "burst": 10.0 })]
    pub login: RateLimit,
    /// Tries to register. One takes a request for each stage that is asked for, mostly one or two.
    #[config(default = { "per_second": 0.2, "burst": 10.0 })]
    pub registration: RateLimit,
    /// Messages, state events, reactions and redactions.
    #[config(default = { "per_second": 10.0, "burst": 100.0 })]
    pub send: RateLimit,
    /// Joining and knocking.
    #[config(default = { "per_second": 0.5, "burst": 20.0 })]
    pub join: RateLimit,
    /// Invitations.
    #[config(default = { "per_second": 0.5, "burst": 30.0 })]
    pub invite: RateLimit,
    /// Invitations of users of this server that another server brings, for each such server.
    #[config(default = { "per_second": 5.0, "burst": 500.0 })]
    pub inviting_server: RateLimit,
    /// Invitations of a user of this server that another server brings, for each such user and server. Users of application
    /// services that are not limited have no such limit.
    #[config(default = { "per_second": 0.1, "burst": 100.0 })]
    pub invited_user: RateLimit,
    /// New rooms and room upgrades.
    #[config(default = { "per_second": 0.2, "burst": 20.0 })]
    pub create_room: RateLimit,
    /// Uploads, downloads and thumbnails.
    #[config(default = { "per_second": 10.0, "burst": 200.0 })]
    pub media: RateLimit,
    /// Previews of web pages.
    #[config(default = { "per_second": 1.0, "burst": 30.0 })]
    pub url_preview: RateLimit,
    /// Searches in the room and user directories, and questions whether a name is free.
    #[config(default = { "per_second": 2.0, "burst": 50.0 })]
    pub search: RateLimit,
    /// Reports to the administrators.
    #[config(default = { "per_second": 0.05, "burst": 10.0 })]
    pub report: RateLimit,
    /// Every other request that changes something.
    #[config(default = { "per_second": 20.0, "burst": 200.0 })]
    pub write: RateLimit,
    /// Every other request that only reads.
    #[config(default = { "per_second": 50.0, "burst": 1000.0 })]
    pub read: RateLimit,
}

/// Other servers and clients find this server through these documents, if it is reached at
/// https://<server_name>/ or a proxy passes them on.
#[derive(Clone, Debug, Schema)]
pub struct WellKnown {
    /// Where other servers reach this one, such as "matrix.example.org:443": m.server of
    /// .well-known/matrix/server. Without it that document does not exist.
    pub server: Option<String>,
    /// Further keys for .well-known/matrix/client, passed through as they are:
    /// { "org.example.key" = { setting = true } }
    #[config(default = {})]
    pub client: Map<String, Value>,
    /// A page with help for users, for .well-known/matrix/support.
    pub support_page: Option<String>,
    /// People to turn to, for .well-known/matrix/support:
    /// [{ role = "m.role.admin", matrix_id = "@admin:example.org", email_address = "admin@example.org" }]
    #[config(default = [])]
    pub support_contacts: Vec<SupportContact>,
}

/// "everyone" or "admins".
#[derive(Clone, Debug, Schema)]
pub struct RoomDefaults {
    /// Who may create rooms.
    #[config(default = "everyone")]
    pub creation: Who,
    /// Who may publish rooms in this server's public directory.
    #[config(default = "everyone")]
    pub publication: Who,
    /// Who may make aliases.
    #[config(default = "everyone")]
    pub aliases: Who,
    /// Whether users of other servers may join new rooms when the client does not say (m.federate).
    #[config(default = true)]
    pub federate: bool,
}

/// How long access tokens live and what a password costs to check.
#[derive(Clone, Debug, Schema)]
pub struct Sessions {
    /// Life of an access token, in seconds, for clients that can refresh it. Others get a token that
    /// lives until they log out.
    #[config(default = 3600)]
    pub access_token_seconds: u64,
    /// How many characters a new password must have at least.
    #[config(default = 8)]
    pub password_min_chars: usize,
    /// Memory for hashing one password (argon2id), in bytes. More makes a stolen database harder to
    /// break and each login heavier.
    #[config(default = "19 MiB", deserialize_with = byte_count)]
    pub password_hash_memory: u64,
    /// Passes over that memory.
    #[config(default = 2)]
    pub password_hash_passes: u32,
}

/// Search in messages.
#[derive(Clone, Debug, Schema)]
pub struct MessageSearch {
    /// Whether users can search in messages. Off saves the index and the work on it.
    #[config(default = true)]
    pub enabled: bool,
}

/// Previews of web pages.
#[derive(Clone, Debug, Schema)]
pub struct UrlPreview {
    /// Whether there are previews.
    #[config(default = false)]
    pub enabled: bool,
    /// The only hosts whose pages are fetched, with all names below them; all hosts if the list is empty.
    #[config(default = [])]
    pub allow: Vec<String>,
    /// Hosts whose pages are not fetched, with all names below them. It wins over allow.
    #[config(default = [])]
    pub deny: Vec<String>,
    /// Private networks, as "10.1.0.0/16", from which pages may be fetched nevertheless. Every user of this server can
    /// then read what is served there.
    #[config(default = [])]
    pub allow_private_networks: Vec<Network>,
    /// How long a preview is kept, in seconds, before the page is asked again.
    #[config(default = 3600)]
    pub keep_seconds: u64,
}

/// Server notices.
#[derive(Clone, Debug, Schema)]
pub struct ServerNotices {
    /// The name of the user that notices come from: the part of the id between @ and the colon, such as
    /// "notices". Nobody can register it. Without it there are no server notices.
    pub localpart: Option<String>,
    /// What that user is called.
    #[config(default = "Server Notices")]
    pub display_name: String,
    /// The mxc:// address of a picture for that user and for the rooms.
    pub avatar_url: Option<String>,
    /// The name of the rooms.
    #[config(default = "Server Notices")]
    pub room_name: String,
}

/// Calls.
#[derive(Clone, Debug, Schema)]
pub struct Turn {
    /// The addresses of the TURN server, such as ["turn:turn.example.org?transport=udp", "turns:turn.example.org"]. Without
    /// any, clients are told of none.
    #[config(default = [])]
    pub uris: Vec<String>,
    /// The secret that the TURN server shares with this one, static-auth-secret in the configuration of coturn. Each user
    /// then gets a name and a password that are good for ttl_seconds.
    pub shared_secret: Option<Secret>,
    /// The name and the password that everybody gets, for a TURN server without such a secret.
    pub username: Option<String>,
    /// The password that belongs to username.
    pub password: Option<Secret>,
    /// How long, in seconds, clients may use what they are told.
    #[config(default = 86_400)]
    pub ttl_seconds: u64,
}

/// Access tokens and the content of messages are never in the log.
#[derive(Clone, Debug, Schema)]
pub struct Log {
    /// What is logged: "error", "warn", "info", "debug", or by module: "info,hearth_api=debug".
    /// "info,hearth::access=debug" adds a line for each request, without its query.
    #[config(default = "info")]
    pub filter: String,
    /// "text" for people or "json" for log collectors.
    #[config(default = "text")]
    pub format: LogFormat,
}

/// Proposals (MSCs) that are not in the Matrix specification yet. A setting goes, or moves to where it belongs, when
/// its proposal is accepted.
#[derive(Clone, Debug, Schema)]
pub struct Experimental {
    /// MSC4140, events that are sent later: how many may wait for each user. 0 turns them off.
    #[config(default = 100)]
    pub delayed_events_per_user: usize,
    /// MSC4140: the longest delay, in seconds.
    #[config(default = 86_400)]
    pub delayed_events_max_seconds: u64,
}

impl Config {
    /// Reads the file, if one is given, and the environment over it, and checks the result.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        load::load(path, &|name| std::env::var(name).ok())
    }

    /// Environment variables that look like mistyped keys, each with the one that was probably meant.
    pub fn mistyped_variables() -> Vec<(String, String)> {
        load::mistyped_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
    }

    /// The defaults, without file and environment.
    pub fn defaults() -> Self {
        load::from_text("", "defaults", &|_| None).expect("the defaults are valid, a test checks it")
    }

    /// A configuration for tests: any free port, open registration, no rate limits, quick passwords.
    pub fn for_tests(server_name: &str) -> Self {
        let mut config = Self::defaults();
        config.server_name = server_name.to_owned();
        config.client_listen = "127.0.0.1:0".to_owned();
        config.registration = RegistrationMode::Open;
        config.rate_limits = false;
        config.memory_limit = 32 << 20;
        config.disk_reserve_bytes = 0;
        config.session.password_hash_memory = 64 << 10;
        config.session.password_hash_passes = 1;
        config
    }

    /// Every listener: the main one, the federation one if it is set, and the further ones. All
    /// fields are filled in: a TLS listener has its files.
    pub fn all_listeners(&self) -> Vec<ListenerConfig> {
        let mut all = vec![ListenerConfig {
            address: self.client_listen.clone(),
            apis: vec![Api::Client, Api::Federation, Api::Health, Api::WellKnown],
            tls: false,
            tls_certificate: None,
            tls_key: None,
        }];
        if let Some(address) = &self.federation_listen {
            all.push(ListenerConfig {
                address: address.clone(),
                apis: vec![Api::Federation, Api::Health, Api::WellKnown],
                tls: true,
                tls_certificate: self.tls_certificate.clone(),
                tls_key: self.tls_key.clone(),
            });
        }
        for listener in &self.listeners {
            let mut listener = listener.clone();
            listener.tls |= listener.tls_certificate.is_some();
            if listener.tls && listener.tls_certificate.is_none() {
                listener.tls_certificate = self.tls_certificate.clone();
                listener.tls_key = self.tls_key.clone();
            }
            all.push(listener);
        }
        all
    }

    /// The address that clients are told to use, without a slash at the end.
    pub fn client_base_url(&self) -> String {
        match &self.public_base_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", self.client_listen),
        }
    }

    /// A page about this server, for people who want to know why it refused something.
    pub fn help_uri(&self) -> String {
        match &self.well_known.support_page {
            Some(page) => page.clone(),
            None => self.client_base_url(),
        }
    }

    /// Where an administrator is reached, as a URI.
    pub fn admin_contact(&self) -> String {
        let contacts = &self.well_known.support_contacts;
        let email = contacts.iter().find_map(|contact| contact.email_address.as_ref());
        let user = contacts.iter().find_map(|contact| contact.matrix_id.as_ref());
        match (email, user.or_else(|| self.admins.first())) {
            (Some(email), _) => format!("mailto:{email}"),
            (None, Some(user)) => format!("https://matrix.to/#/{user}"),
            (None, None) => self.help_uri(),
        }
    }

    /// Folder of the storage engine.
    pub fn database_dir(&self) -> PathBuf {
        self.data_dir.join("database")
    }

    /// Folder of the search index.
    pub fn search_dir(&self) -> PathBuf {
        self.data_dir.join("search")
    }

    /// The socket on which a running server takes commands of the same machine.
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// Folder of uploaded media.
    pub fn media_dir(&self) -> PathBuf {
        self.data_dir.join("media")
    }
}

/// The reference of all keys, as `config/hearth.example.toml` holds it.
pub fn example_toml() -> String {
    example::generate()
}
