//! What is read about users again and again, in memory: accounts with profile and ignored users, and tokens.
//!
//! A cache is filled from published data only, and a publish removes what it made stale. Between the
//! read of a filler and its insertion a publish may pass; a generation counter per group of slots
//! notices that, and the filler then leaves the cache alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_storage::{EntityKey, Slot};
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use ruma::{OwnedUserId, UserId};

use crate::account::Account;
use crate::profile::Profile;
use crate::token::{Hash, TokenRecord};
use crate::write::UserNote;

/// Groups of slots whose fills are told apart.
const GROUPS: usize = 256;

/// What is cached of a user.
#[derive(Debug)]
pub(crate) struct Known {
    pub key: EntityKey,
    pub account: Arc<Account>,
    pub profile: Arc<Profile>,
    pub ignored: Arc<BTreeSet<OwnedUserId>>,
    /// The bytes this entry counts for.
    pub weight: u64,
}

#[derive(Clone)]
struct KnownWeight;

impl Weighter<OwnedUserId, Arc<Known>> for KnownWeight {
    fn weight(&self, key: &OwnedUserId, value: &Arc<Known>) -> u64 {
        200 + key.as_str().len() as u64 + value.weight
    }
}

#[derive(Clone)]
struct TokenWeight;

impl Weighter<Hash, Arc<TokenRecord>> for TokenWeight {
    fn weight(&self, _: &Hash, value: &Arc<TokenRecord>) -> u64 {
        160 + (value.user_id.as_str().len() + value.device_id.as_str().len()) as u64
    }
}

pub(crate) struct Caches {
    users: Cache<OwnedUserId, Arc<Known>, KnownWeight>,
    tokens: Cache<Hash, Arc<TokenRecord>, TokenWeight>,
    generations: Vec<Mutex<u64>>,
}

/// The state of the caches before a read that is to fill them.
pub(crate) struct Fill {
    group: usize,
    generation: u64,
}

impl Caches {
    /// Caches that hold about `bytes` together.
    pub(crate) fn new(bytes: u64) -> Self {
        let half = (bytes / 2).max(1 << 16);
        let items = usize::try_from(half / 400).unwrap_or(usize::MAX);
        Self {
            users: Cache::with_weighter(items, half, KnownWeight),
            tokens: Cache::with_weighter(items, half, TokenWeight),
            generations: (0..GROUPS).map(|_| Mutex::new(0)).collect(),
        }
    }

    pub(crate) fn user(&self, id: &UserId) -> Option<Arc<Known>> {
        self.users.get(id)
    }

    pub(crate) fn token(&self, hash: &Hash) -> Option<Arc<TokenRecord>> {
        self.tokens.get(hash)
    }

    /// To be called before the read that gives the value for one of the `put` functions.
    pub(crate) fn before_read(&self, slot: Slot) -> Fill {
        let group = usize::from(slot.get()) % GROUPS;
        Fill {
            group,
            generation: *self.generations[group].lock(),
        }
    }

    pub(crate) fn put_user(&self, fill: &Fill, id: OwnedUserId, known: Arc<Known>) {
        let generation = self.generations[fill.group].lock();
        if *generation == fill.generation {
            self.users.insert(id, known);
        }
    }

    pub(crate) fn put_token(&self, fill: &Fill, hash: Hash, record: Arc<TokenRecord>) {
        let generation = self.generations[fill.group].lock();
        if *generation == fill.generation {
            self.tokens.insert(hash, record);
        }
    }

    /// A batch of this user is readable now: lets go of what it made stale.
    pub(crate) fn published(&self, note: &UserNote) {
        let mut generation = self.generations[usize::from(note.key.slot.get()) % GROUPS].lock();
        *generation += 1;
        if note.reloads {
            self.users.remove(&note.user_id);
        }
        for hash in &note.tokens {
            self.tokens.remove(hash);
        }
    }
}
