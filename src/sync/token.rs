//! The one token grammar: every batch token that a client gets or sends is made and read here.
//!
//! | text | what it is |
//! |---|---|
//! | `s1_…` | a [`SyncToken`]: how far a client has seen everything |
//! | `t1_…` | a [`Place`]: a gap in one room's timeline |
//! | `p1_…` | a [`SlidingPos`]: an answer of a connection of sliding sync, and how far it went |
//! | `d1_…` | how far a device has got the messages to it ([`ToDeviceToken`]) |
//! | `h1_…` | between which changes of thread subscriptions to go on ([`ThreadsToken`]) |
//! | `m1_….s1_…` | the same as `s1_…`, of an answer after which messages to the device wait |
//! | `n1_…`, `q1_…` | the same as `s1_…` and `p1_…`, beside shards that are stored in the user's shard under a name |
//!
//! After the prefix stand variable-length integers in base64url without padding.
//! **Invariant:** no other module knows what is inside.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hearth_rooms::{Place, Room};
use hearth_storage::{Position, ShardId};
use hearth_users::User;

use crate::{
    Error,
    token_base::{BaseName, NAME_BYTES, TokenBase, put_shards, take_shards},
};

const SYNC_PREFIX: &str = "s1_";
const PLACE_PREFIX: &str = "t1_";
const SLIDING_PREFIX: &str = "p1_";
const TO_DEVICE_PREFIX: &str = "d1_";
const THREADS_PREFIX: &str = "h1_";
const MESSAGES_PREFIX: &str = "m1_";
const NAMED_PREFIX: &str = "n1_";
const NAMED_SLIDING_PREFIX: &str = "q1_";

/// The longest text that is looked at: a token with a position of each of the 1,024 shards that a data directory can have at
/// the most, which is given out only where it cannot be stored. HTTP heads may be longer.
const TEXT_MAX_BYTES: usize = 12 << 10;

/// How far a client has seen what it may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncToken {
    /// The positions of the shards that hold the user's rooms, ordered by shard. Nothing has been
    /// seen of a shard that is missing.
    pub shards: Vec<(ShardId, Position)>,
    /// The position in the user's own shard.
    pub user: Position,
    /// What was seen of typing: the number of the index that counted, and its count.
    pub ephemeral: (u64, u64),
    /// What was seen of presence: the number of the process's start, and its count.
    pub presence: (u64, u64),
    /// The position in the user's own shard up to which the device has got messages, where that is less than `user`, or
    /// nothing but messages was told.
    pub messages: Option<Position>,
}

/// The position of a connection of sliding sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlidingPos {
    /// The number of the connection.
    pub connection: u64,
    /// The number of the answer.
    pub answer: u64,
    /// How far the answer went.
    pub token: SyncToken,
}

/// How far a device has got the messages to it: a position in the user's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToDeviceToken(pub Position);

/// Changes of thread subscriptions that were not sent, by their positions in the user's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadsToken {
    /// They are before this one.
    pub before: Position,
    /// And after this one.
    pub after: Position,
}

impl SlidingPos {
    /// Reads a position that was given to a device of the user; none for anything else.
    pub fn read(user: &User, text: &str) -> Result<Option<Self>, Error> {
        let Some(text) = text
            .strip_prefix(NAMED_SLIDING_PREFIX)
            .filter(|text| text.len() <= TEXT_MAX_BYTES)
        else {
            return Ok(Self::parse(text));
        };
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(text) else {
            return Ok(None);
        };
        let mut rest = bytes.as_slice();
        let (Some(connection), Some(answer)) = (take(&mut rest), take(&mut rest)) else {
            return Ok(None);
        };
        // Where the base is gone, the client begins anew, as with any position that is not known.
        Ok(SyncToken::decode_named(user, rest).ok().map(|token| Self {
            connection,
            answer,
            token,
        }))
    }

    /// Reads a position that needs nothing stored; none for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text
            .strip_prefix(SLIDING_PREFIX)
            .filter(|text| text.len() <= TEXT_MAX_BYTES)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut rest = bytes.as_slice();
        Some(Self {
            connection: take(&mut rest)?,
            answer: take(&mut rest)?,
            token: SyncToken::decode(rest)?,
        })
    }

    /// The position as text, beside a base if one is given.
    pub(crate) fn text(&self, base: Option<&TokenBase>) -> String {
        let mut bytes = Vec::with_capacity(64);
        put(&mut bytes, self.connection);
        put(&mut bytes, self.answer);
        bytes.extend_from_slice(&self.token.encode(base));
        let prefix = base.map_or(SLIDING_PREFIX, |_| NAMED_SLIDING_PREFIX);
        format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Display for SlidingPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(None))
    }
}

impl ToDeviceToken {
    /// Reads a token.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = text
            .strip_prefix(TO_DEVICE_PREFIX)
            .filter(|text| text.len() <= TEXT_MAX_BYTES)
            .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let position = bytes.and_then(|bytes| {
            let mut rest = bytes.as_slice();
            take(&mut rest).filter(|_| rest.is_empty())
        });
        position
            .map(Self)
            .ok_or(Error::BadToken("it is none of messages to a device"))
    }
}

impl fmt::Display for ToDeviceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(10);
        put(&mut bytes, self.0);
        f.write_str(TO_DEVICE_PREFIX)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl ThreadsToken {
    /// Reads a token.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = text
            .strip_prefix(THREADS_PREFIX)
            .filter(|text| text.len() <= TEXT_MAX_BYTES)
            .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let token = bytes.and_then(|bytes| {
            let mut rest = bytes.as_slice();
            let (before, after) = (take(&mut rest)?, take(&mut rest)?);
            rest.is_empty().then_some(Self { before, after })
        });
        token.ok_or(Error::BadToken("it is none of thread subscriptions"))
    }
}

impl fmt::Display for ThreadsToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(20);
        put(&mut bytes, self.before);
        put(&mut bytes, self.after);
        f.write_str(THREADS_PREFIX)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// A token as endpoints that take a point in a room's history accept it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchToken {
    /// From `/sync`.
    Sync(SyncToken),
    /// From `/messages`, `/context`, `/relations`, `/threads` and the timelines of `/sync`.
    Place(Place),
}

impl SyncToken {
    /// What was seen of a shard; 0 where nothing was.
    pub fn shard(&self, shard: ShardId) -> Position {
        let at = self.shards.binary_search_by_key(&shard, |(shard, _)| *shard);
        at.map_or(0, |at| self.shards[at].1)
    }

    /// Takes over from another token the shards that this one lacks.
    pub(crate) fn add_shards(&mut self, other: &Self) {
        let mut shards: BTreeMap<_, _> = other.shards.iter().copied().collect();
        shards.extend(self.shards.iter().copied());
        self.shards = shards.into_iter().collect();
    }

    /// The token of a first sync that has told of nothing but messages to the device so far.
    pub(crate) fn of_messages_alone(messages: Position) -> Self {
        Self {
            messages: Some(messages),
            ..Self::default()
        }
    }

    /// Whether the first sync is not over: everything but the messages is still to be told.
    pub(crate) fn is_of_messages_alone(&self) -> bool {
        // The account itself has a position, so that no other token has 0 there.
        self.messages.is_some() && self.user == 0
    }

    /// Up to where the device has got messages.
    pub(crate) fn messages_seen(&self) -> Position {
        self.messages.unwrap_or(self.user)
    }

    /// Reads a token that was given to a device of the user, and must be one of `/sync`.
    pub fn read(user: &User, text: &str) -> Result<Self, Error> {
        Self::of(BatchToken::read(user, text)?)
    }

    /// Reads a token that needs nothing stored, and must be one of `/sync`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::of(BatchToken::parse(text)?)
    }

    fn of(token: BatchToken) -> Result<Self, Error> {
        match token {
            BatchToken::Sync(token) => Ok(token),
            BatchToken::Place(_) => Err(Error::BadToken("it is not a token of /sync")),
        }
    }

    /// The token as text, beside a base if one is given.
    pub(crate) fn text(&self, base: Option<&TokenBase>) -> String {
        let prefix = base.map_or(SYNC_PREFIX, |_| NAMED_PREFIX);
        let rest = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(self.encode(base)));
        let Some(messages) = self.messages else {
            return rest;
        };
        let mut bytes = Vec::with_capacity(10);
        put(&mut bytes, messages);
        format!("{MESSAGES_PREFIX}{}.{rest}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Takes the position of messages off the front of a token that has one.
    fn split_messages(text: &str) -> Option<(Position, &str)> {
        let (messages, rest) = text.strip_prefix(MESSAGES_PREFIX)?.split_once('.')?;
        let bytes = URL_SAFE_NO_PAD.decode(messages).ok()?;
        let mut left = bytes.as_slice();
        let messages = take(&mut left).filter(|_| left.is_empty())?;
        let is_of_sync = [SYNC_PREFIX, NAMED_PREFIX]
            .iter()
            .any(|prefix| rest.starts_with(prefix));
        is_of_sync.then_some((messages, rest))
    }

    fn with_messages(token: BatchToken, messages: Position) -> BatchToken {
        match token {
            BatchToken::Sync(token) => BatchToken::Sync(Self {
                messages: Some(messages),
                ..token
            }),
            place @ BatchToken::Place(_) => place,
        }
    }

    fn encode(&self, base: Option<&TokenBase>) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + 6 * self.shards.len());
        if let Some(base) = base {
            out.extend_from_slice(&base.name);
        }
        put(&mut out, self.user);
        for value in [
            self.ephemeral.0,
            self.ephemeral.1,
            self.presence.0,
            self.presence.1,
        ] {
            put(&mut out, value);
        }
        match base {
            Some(base) => base.put_difference(&mut out, &self.shards),
            None => put_shards(&mut out, &self.shards),
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let token = Self::decode_head(&mut rest)?;
        Some(Self {
            shards: take_shards(rest)?,
            ..token
        })
    }

    /// Everything but the shards.
    fn decode_head(rest: &mut &[u8]) -> Option<Self> {
        Some(Self {
            user: take(rest)?,
            ephemeral: (take(rest)?, take(rest)?),
            presence: (take(rest)?, take(rest)?),
            shards: Vec::new(),
            messages: None,
        })
    }

    /// Reads what stands beside a base of the user.
    fn decode_named(user: &User, bytes: &[u8]) -> Result<Self, Error> {
        let damaged = Error::BadToken("it is damaged");
        let Some((name, mut rest)) = bytes.split_at_checked(NAME_BYTES) else {
            return Err(damaged);
        };
        let Ok(name) = BaseName::try_from(name) else {
            return Err(damaged);
        };
        let Some(token) = Self::decode_head(&mut rest) else {
            return Err(damaged);
        };
        let base = TokenBase::read(user, name)?;
        let shards = base.with_difference(rest).ok_or(damaged)?;
        Ok(Self { shards, ..token })
    }
}

impl BatchToken {
    /// Reads any batch token that was given to a device of the user.
    pub fn read(user: &User, text: &str) -> Result<Self, Error> {
        if text.len() > TEXT_MAX_BYTES {
            return Err(Error::BadToken("it is too long"));
        }
        if text.starts_with(NAMED_SLIDING_PREFIX) {
            let pos = SlidingPos::read(user, text)?;
            let pos = pos.ok_or(Error::BadToken("it is damaged, or too old"))?;
            return Ok(Self::Sync(pos.token));
        }
        if let Some((messages, rest)) = SyncToken::split_messages(text) {
            return Ok(SyncToken::with_messages(Self::read(user, rest)?, messages));
        }
        let Some(named) = text.strip_prefix(NAMED_PREFIX) else {
            return Self::parse(text);
        };
        let bytes = URL_SAFE_NO_PAD.decode(named);
        let bytes = bytes.map_err(|_| Error::BadToken("it is damaged"))?;
        SyncToken::decode_named(user, &bytes).map(Self::Sync)
    }

    /// Reads any batch token that needs nothing stored.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > TEXT_MAX_BYTES {
            return Err(Error::BadToken("it is too long"));
        }
        if text.starts_with(SLIDING_PREFIX) {
            let pos = SlidingPos::parse(text);
            return pos
                .map(|pos| Self::Sync(pos.token))
                .ok_or(Error::BadToken("it is damaged"));
        }
        if let Some((messages, rest)) = SyncToken::split_messages(text) {
            return Ok(SyncToken::with_messages(Self::parse(rest)?, messages));
        }
        let inside = |prefix: &str| text.strip_prefix(prefix).map(|rest| URL_SAFE_NO_PAD.decode(rest));
        if let Some(bytes) = inside(SYNC_PREFIX) {
            let token = bytes.ok().and_then(|bytes| SyncToken::decode(&bytes));
            return token.map(Self::Sync).ok_or(Error::BadToken("it is damaged"));
        }
        if let Some(bytes) = inside(PLACE_PREFIX) {
            let place = bytes.ok().and_then(|bytes| decode_place(&bytes));
            return place.map(Self::Place).ok_or(Error::BadToken("it is damaged"));
        }
        Err(Error::BadToken("it is of no kind that this server gives out"))
    }

    /// The gap in a room's timeline that the token stands for.
    pub fn place_in(&self, room: &Room) -> Result<Place, Error> {
        match self {
            Self::Place(place) => Ok(*place),
            Self::Sync(token) => match token.shard(room.shard()) {
                0 => Ok(Place::START),
                position => Ok(room.place_at(position)?),
            },
        }
    }
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(None))
    }
}

impl fmt::Display for BatchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync(token) => token.fmt(f),
            Self::Place(place) => {
                let mut bytes = Vec::with_capacity(12);
                put(&mut bytes, place.anchor);
                put(&mut bytes, zigzag(place.offset));
                f.write_str(PLACE_PREFIX)?;
                f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
            }
        }
    }
}

impl From<Place> for BatchToken {
    fn from(place: Place) -> Self {
        Self::Place(place)
    }
}

fn decode_place(bytes: &[u8]) -> Option<Place> {
    let mut rest = bytes;
    let anchor = take(&mut rest)?;
    let zigzag = u32::try_from(take(&mut rest)?).ok()?;
    let offset = (zigzag >> 1) as i32 ^ -((zigzag & 1) as i32);
    rest.is_empty().then_some(Place { anchor, offset })
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}

/// Appends a number in LEB128.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number in LEB128 off the front.
pub(crate) fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
