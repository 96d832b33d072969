//! Tokens that would be too long for a URL: those of an account whose rooms lie in many shards.
//!
//! Of such a token the positions of all shards, the *base*, are stored in the user's shard under a name. The token has the
//! name and what differs from the base. The next tokens of the device build on the same base while what differs fits, so
//! that a sync seldom writes anything. A device keeps its last bases: it may come back with an older token.

use std::{collections::HashMap, sync::Arc};

use hearth_storage::{Position, ShardId};
use hearth_users::User;
use ruma::DeviceId;

use crate::{
    Error, SlidingPos, SyncEngine, SyncToken,
    index::UserIndex,
    token::{put, take},
};

/// Length of a base's name.
pub(crate) const NAME_BYTES: usize = 12;

/// Devices of one user whose bases are kept in memory.
const DEVICES_MAX: usize = 20;

/// A name among the bases of a user.
pub(crate) type BaseName = [u8; NAME_BYTES];

/// The shards of an earlier token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenBase {
    pub(crate) name: BaseName,
    pub(crate) shards: Vec<(ShardId, Position)>,
}

/// The bases on which the tokens of a user's devices build now.
#[derive(Default)]
pub(crate) struct TokenBases(HashMap<String, Arc<TokenBase>>);

impl TokenBases {
    fn get(&self, device: &str) -> Option<Arc<TokenBase>> {
        self.0.get(device).cloned()
    }

    fn set(&mut self, device: &str, base: Arc<TokenBase>) {
        if self.0.len() >= DEVICES_MAX {
            self.0.clear();
        }
        self.0.insert(device.to_owned(), base);
    }
}

impl TokenBase {
    /// A base of a device.
    fn new(device: &str, shards: &[(ShardId, Position)]) -> Self {
        let mut base = Self {
            name: [0; NAME_BYTES],
            shards: shards.to_vec(),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(device.len() as u64).to_be_bytes());
        hasher.update(device.as_bytes());
        hasher.update(&base.encode());
        base.name
            .copy_from_slice(&hasher.finalize().as_bytes()[..NAME_BYTES]);
        base
    }

    /// The stored form, without the name.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(6 * self.shards.len());
        put_shards(&mut out, &self.shards);
        out
    }

    fn decode(name: BaseName, bytes: &[u8]) -> Option<Self> {
        let shards = take_shards(bytes)?;
        Some(Self { name, shards })
    }

    /// What a token's shards are beside the base's: each shard that differs, with its position and one, or 0 where the
    /// token lacks it.
    pub(crate) fn put_difference(&self, out: &mut Vec<u8>, shards: &[(ShardId, Position)]) {
        let (mut old, mut new) = (self.shards.iter().peekable(), shards.iter().peekable());
        let mut next = 0;
        loop {
            let shard = match (old.peek(), new.peek()) {
                (Some((old, _)), Some((new, _))) => *old.min(new),
                (Some((shard, _)), None) | (None, Some((shard, _))) => *shard,
                (None, None) => return,
            };
            let before = old.next_if(|(one, _)| *one == shard).map(|(_, at)| *at);
            let after = new.next_if(|(one, _)| *one == shard).map(|(_, at)| *at);
            if before != after {
                put(out, u64::from(shard.0) - next);
                put(out, after.map_or(0, |at| at.saturating_add(1)));
                next = u64::from(shard.0) + 1;
            }
        }
    }

    /// The shards that differ from the base's in the given way.
    pub(crate) fn with_difference(&self, mut rest: &[u8]) -> Option<Vec<(ShardId, Position)>> {
        let mut changed = Vec::new();
        let mut next: u64 = 0;
        while !rest.is_empty() {
            let shard = u16::try_from(next.checked_add(take(&mut rest)?)?).ok()?;
            changed.push((ShardId(shard), take(&mut rest)?));
            next = u64::from(shard) + 1;
        }
        let mut shards: std::collections::BTreeMap<_, _> = self.shards.iter().copied().collect();
        for (shard, at) in changed {
            match at.checked_sub(1) {
                Some(at) => shards.insert(shard, at),
                None => shards.remove(&shard),
            };
        }
        Some(shards.into_iter().collect())
    }

    /// The base of a name, of any device of a user.
    pub(crate) fn read(user: &User, name: BaseName) -> Result<Self, Error> {
        let gone = Error::BadToken("it is too old: begin anew without one");
        let Some(bytes) = user.token_base(&name)? else {
            return Err(gone);
        };
        Self::decode(name, &bytes).ok_or(gone)
    }
}

/// Appends shards with their positions. A shard is told by the step from the one before: most lie side by side.
pub(crate) fn put_shards(out: &mut Vec<u8>, shards: &[(ShardId, Position)]) {
    let mut next = 0;
    for (shard, position) in shards {
        put(out, u64::from(shard.0) - next);
        put(out, *position);
        next = u64::from(shard.0) + 1;
    }
}

/// Reads what [`put_shards`] wrote, to the end.
pub(crate) fn take_shards(mut rest: &[u8]) -> Option<Vec<(ShardId, Position)>> {
    let mut shards = Vec::new();
    let mut next: u64 = 0;
    while !rest.is_empty() {
        let shard = u16::try_from(next.checked_add(take(&mut rest)?)?).ok()?;
        shards.push((ShardId(shard), take(&mut rest)?));
        next = u64::from(shard) + 1;
    }
    Some(shards)
}

impl SyncEngine {
    /// The text of a token as its client gets it.
    pub(crate) async fn token_text(
        &self,
        index: &UserIndex,
        device: Option<&DeviceId>,
        token: &SyncToken,
    ) -> String {
        let text = |base: Option<&TokenBase>| token.text(base);
        self.short_text(index, device, token, &text).await
    }

    /// The text of a position of sliding sync as its client gets it.
    pub(crate) async fn pos_text(
        &self,
        index: &UserIndex,
        device: Option<&DeviceId>,
        pos: &SlidingPos,
    ) -> String {
        let text = |base: Option<&TokenBase>| pos.text(base);
        self.short_text(index, device, &pos.token, &text).await
    }

    /// Writes a token out, by a base where it would be too long without. Where no base can be stored, it is too long: the
    /// server reads it all the same.
    async fn short_text(
        &self,
        index: &UserIndex,
        device: Option<&DeviceId>,
        token: &SyncToken,
        write: &(dyn Fn(Option<&TokenBase>) -> String + Sync),
    ) -> String {
        let fits = |text: &String| text.len() <= hearth_core::limits::SYNC_TOKEN_MAX_BYTES;
        let whole = write(None);
        if fits(&whole) {
            return whole;
        }
        let device = device.map_or("", DeviceId::as_str);
        let known = index.state.lock().bases.get(device);
        if let Some(text) = known.map(|base| write(Some(&base))).filter(fits) {
            return text;
        }
        let base = Arc::new(TokenBase::new(device, &token.shards));
        let stored = index
            .user
            .put_token_base(device, &base.name, &base.encode())
            .await;
        if !stored.as_ref().is_ok_and(|stored| *stored) {
            tracing::debug!(?stored, "a long token could not be stored");
            return whole;
        }
        index.state.lock().bases.set(device, base.clone());
        write(Some(&base))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Shards = std::collections::BTreeMap<u16, u64>;

    fn list(shards: &Shards) -> Vec<(ShardId, Position)> {
        shards.iter().map(|(shard, at)| (ShardId(*shard), *at)).collect()
    }

    fn some_shards() -> impl Strategy<Value = Shards> {
        proptest::collection::btree_map(any::<u16>(), 0..u64::MAX, 0..60)
    }

    proptest! {
        #[test]
        fn differences_round_trip(old in some_shards(), changes in some_shards(), gone in proptest::collection::vec(any::<u16>(), 0..9)) {
            let mut new = old.clone();
            new.extend(changes);
            for shard in gone {
                new.remove(&shard);
            }
            let base = TokenBase::new("D", &list(&old));
            prop_assert_eq!(TokenBase::decode(base.name, &base.encode()), Some(base.clone()));
            let mut difference = Vec::new();
            base.put_difference(&mut difference, &list(&new));
            prop_assert_eq!(base.with_difference(&difference), Some(list(&new)));
            if old == new {
                prop_assert!(difference.is_empty());
            }
        }

        #[test]
        fn any_difference_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let base = TokenBase::new("D", &[(ShardId(1), 5), (ShardId(9), 7)]);
            if let Some(shards) = base.with_difference(&bytes) {
                prop_assert!(shards.is_sorted_by(|one, other| one.0 < other.0));
            }
        }
    }

    #[test]
    fn names_are_of_a_device() {
        let shards = [(ShardId(1), 5)];
        assert_ne!(
            TokenBase::new("A", &shards).name,
            TokenBase::new("B", &shards).name
        );
        assert_eq!(TokenBase::new("A", &shards), TokenBase::new("A", &shards));
    }
}
