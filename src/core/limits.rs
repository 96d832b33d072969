//! Limits on everything that can grow. Each is a constant with its unit last and its reason; what
//! an operator may want to change is in the configuration instead.

use std::time::Duration;

/// The largest PDU, set by the specification.
pub const PDU_MAX_BYTES: usize = 65_535;
/// The longest user, room, event, alias and server id, event type and state key, set by the
/// specification.
pub const ID_MAX_BYTES: usize = 255;
/// The deepest JSON we read. serde_json stops at 128; clients and servers stay far below.
pub const JSON_MAX_DEPTH: usize = 100;
/// The most previous events of one PDU, set by the specification.
pub const PREV_EVENTS_MAX: usize = 20;
/// The most auth events of one PDU: servers send at most about ten, others refuse more than this.
pub const AUTH_EVENTS_MAX: usize = 10;
/// The largest batch that one operation may commit. Larger work is staged (design, section 9).
pub const BATCH_MAX_BYTES: usize = 1 << 20;

/// The longest a client may wait in one `/sync`. Proxies commonly cut connections at 60 s or more.
pub const SYNC_MAX_TIMEOUT_MS: u64 = 120_000;
/// Timeline events per room in a sync without a filter, as other servers answer.
pub const SYNC_TIMELINE_DEFAULT_EVENTS: usize = 10;
/// The most timeline events per room in a sync: a page that a phone can still take.
pub const SYNC_TIMELINE_MAX_EVENTS: usize = 100;
/// Events in a page of `/messages` without a limit, set by the specification.
pub const PAGE_DEFAULT_EVENTS: usize = 10;
/// The most events in one page: bounds the work and the memory of one request.
pub const PAGE_MAX_EVENTS: usize = 1_000;
/// A sync token longer than this is stored in the user's shard and named (design, section 9): it
/// must fit in a query string that every proxy takes.
pub const SYNC_TOKEN_MAX_BYTES: usize = 1_024;
/// To-device messages in one sync, as other servers send.
pub const TO_DEVICE_PAGE_MAX_MESSAGES: usize = 100;
/// The largest content of a to-device message: that of an event. It is stored once for each device.
pub const TO_DEVICE_CONTENT_MAX_BYTES: usize = 64 << 10;

/// The most rooms in a page of the public directory.
pub const DIRECTORY_PAGE_MAX_ROOMS: usize = 500;
/// The most users in an answer of the user directory.
pub const USER_SEARCH_MAX_RESULTS: usize = 50;
/// The largest filter definition: it is kept forever.
pub const FILTER_MAX_BYTES: usize = 16 << 10;
/// The most filters that one user may store; beyond it the request is refused.
pub const FILTERS_PER_USER_MAX: usize = 1_000;
/// The largest account data object of one type: it goes into every initial sync.
pub const ACCOUNT_DATA_MAX_BYTES: usize = 256 << 10;
/// All account data of one user: a client that begins anew is sent all of it at once. Some thousand rooms with their read
/// markers take one MiB.
pub const ACCOUNT_DATA_PER_USER_MAX_BYTES: usize = 16 << 20;
/// The largest whole profile, set by the specification.
pub const PROFILE_MAX_BYTES: usize = 64 << 10;
/// The longest name of a profile field, set by the specification.
pub const PROFILE_KEY_MAX_BYTES: usize = 255;
/// The longest display name: clients show it in one line.
pub const DISPLAY_NAME_MAX_BYTES: usize = 256;
/// The longest avatar URL: an mxc URI is far shorter, and every member event repeats it.
pub const AVATAR_URL_MAX_BYTES: usize = 1000;
/// The longest password: hashing a longer one costs without helping.
pub const PASSWORD_MAX_BYTES: usize = 512;
/// The shortest password that we take.
pub const PASSWORD_MIN_CHARS: usize = 8;
/// The longest device name.
pub const DEVICE_NAME_MAX_BYTES: usize = 512;
/// The most devices of one user: each costs a record in every key query.
pub const DEVICES_PER_USER_MAX: usize = 1_000;
/// How long a user-interactive authentication session is kept. Half an hour lets a person read
/// terms and look for a password.
pub const UIA_SESSION_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// The most open user-interactive sessions: they live in memory, the oldest give way.
pub const UIA_SESSIONS_MAX: usize = 100_000;
/// The longest reason of a report, a kick or a ban.
pub const REASON_MAX_BYTES: usize = 4_096;
/// The longest transaction id.
pub const TXN_ID_MAX_BYTES: usize = 255;
/// The most invitations in one `createRoom`.
pub const CREATE_ROOM_MAX_INVITES: usize = 200;
/// The most local aliases of one room made by one server: each is in a state event's size.
pub const ALIASES_PER_ROOM_MAX: usize = 100;

/// How long someone is shown as typing, at most.
pub const TYPING_MAX_MS: u64 = 120_000;
/// After this long without activity an online user counts as unavailable.
pub const PRESENCE_IDLE: Duration = Duration::from_secs(5 * 60);
/// After this long without a sync a user counts as offline.
pub const PRESENCE_OFFLINE: Duration = Duration::from_secs(30);
/// The longest status message.
pub const STATUS_MESSAGE_MAX_BYTES: usize = 1_024;

/// How long a media id that was announced may wait for its content, as the specification suggests.
pub const MEDIA_PENDING_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The most announced media ids of one user that wait for content.
pub const MEDIA_PENDING_PER_USER_MAX: usize = 100;
/// How long a download of media that is not yet uploaded may wait.
pub const MEDIA_WAIT_MAX_MS: u64 = 60_000;
/// The largest picture that we decode for a thumbnail: 64 megapixels are 256 MB of RGBA.
pub const IMAGE_MAX_PIXELS: u64 = 64_000_000;
/// Thumbnails are not made larger than this on a side.
pub const THUMBNAIL_MAX_SIDE_PIXELS: u32 = 1_600;
/// The longest file name of an upload.
pub const FILE_NAME_MAX_BYTES: usize = 1_024;

/// A client has this long to send the head of a request, counted from the end of the one before: it is
/// also how long an idle connection is kept. Longer than the 60 s after which proxies commonly drop
/// theirs, so that they do not send a request into a connection that we are closing.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(90);
/// A body that is read whole must be there within this time, and of an upload the next piece: what came so far is in
/// memory or on the disk, and holds a connection, however slowly the rest comes.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The most headers of one request, and the largest head: what other servers take.
pub const HEADERS_MAX: usize = 100;
/// The largest head of a request. Access tokens and cookies of proxies fit with room.
pub const HEADER_MAX_BYTES: usize = 32 << 10;
/// A TLS handshake has this long.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent HTTP/2 streams of one connection.
pub const HTTP2_STREAMS_MAX: u32 = 256;
/// After the signal to stop, requests have this long to finish before connections are cut.
pub const SHUTDOWN_DRAIN: Duration = Duration::from_secs(20);
/// How often certificate files are looked at for changes.
pub const CERTIFICATE_CHECK: Duration = Duration::from_secs(30);
/// A connection to another machine must be there within this time.
pub const OUTBOUND_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most key backups of one user: clients make one at a time and delete the one before.
pub const KEY_BACKUPS_PER_USER_MAX: usize = 100;
/// The most keys of one backup: a session for every day in a few hundred rooms, for years.
pub const KEY_BACKUP_MAX_KEYS: u64 = 1_000_000;
/// The largest encrypted key or auth_data of a backup: both are about a kilobyte.
pub const KEY_BACKUP_DATA_MAX_BYTES: usize = 64 << 10;
/// The most keys in one upload of cross-signing signatures: a user has fewer devices and contacts to sign at once.
pub const SIGNATURE_UPLOAD_MAX_KEYS: usize = 2_000;
/// The largest cross-signing key, with its signatures.
pub const CROSS_SIGNING_KEY_MAX_BYTES: usize = 64 << 10;
/// The most signatures of one user that stand on one key: one of each of his devices would fit.
pub const SIGNATURES_PER_KEY_MAX: usize = 1_000;
/// The most registration tokens that one server keeps.
pub const REGISTRATION_TOKENS_MAX: usize = 10_000;
