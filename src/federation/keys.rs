//! Signing keys of servers: ours as it is published, those of others as they were valid at a time (server-server API,
//! "Retrieving server keys").
//!
//! A key that is wanted is looked for in memory, then in storage, then at its server, then at the notaries that the
//! operator named. Questions for one server at the same time are asked once; a server whose keys cannot be had is left
//! alone for a while.

mod document;
mod fetch;
mod known;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures::future::{FutureExt, Shared};
use futures::stream::{self, StreamExt};
use hearth_cluster::Cluster;
use hearth_core::{SharedClock, tasks};
use hearth_events::KeyPair;
use hearth_rooms::KeyAt;
use hearth_storage::schema::server_key::ServerKeyKey;
use hearth_storage::{Batch, Family, Record, record, slot_of};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, oneshot};

use crate::client::Client;
use document::Document;
use fetch::{NOTARY_BATCH_SERVERS, Wanted};
use known::{Known, StoredKnown, VALIDITY_MAX_MS};

/// Our own document is valid for a day: servers then ask once a day, and a new key is known everywhere after one.
const OWN_VALIDITY_MS: u64 = 24 * 60 * 60 * 1000;
/// Our own document is signed anew after this; it never is given out with less than 23 hours to go.
const OWN_REMAKE_MS: u64 = 60 * 60 * 1000;
/// Servers whose decoded keys are held in memory, of about a kilobyte each.
const CACHED_SERVERS: usize = 10_000;
/// Servers and keys that could not be had, and are remembered so.
const FAILURES_MAX: usize = 20_000;
/// A server that answered is not asked again within this time, whatever key ids somebody makes up for it.
const REFETCH_MIN_MS: u64 = 10_000;
/// A server that does not give its keys is left alone for this long at first,
const FAILURE_FIRST_MS: u64 = 5_000;
/// and at most for this long;
const FAILURE_MAX_MS: u64 = 30 * 60 * 1000;
/// but for no longer than this where it makes a request, and so is there.
const FAILURE_OF_PRESENT_MAX_MS: u64 = 30_000;
/// A key that neither its server nor a notary has is not asked for again within this time.
const MISSING_MS: u64 = 5 * 60 * 1000;
/// Fetches that run at once: each is a connection.
const FETCHES_MAX: usize = 50;
/// Fetches that run or wait. Beyond it a key is not there: somebody is making up servers.
const FETCHES_WAITING_MAX: usize = 2_000;
/// With more servers than this to ask, notaries are asked first: they have the keys of servers that no longer answer,
/// which would each cost the time of a connection.
const NOTARIES_FIRST_ABOVE_SERVERS: usize = 8;
/// The servers that one request may ask us to notarize: beyond it the rest is left out of the answer.
pub const NOTARIZE_MAX_SERVERS: usize = 100;
/// Of them so many are asked at once, so that one request does not take all places for fetches.
const NOTARIZE_AT_ONCE: usize = 8;

/// Who waits for a fetch.
type Waiting = Shared<oneshot::Receiver<()>>;

/// What a fetch is for: a server's own answer, or a key at the notaries.
type FetchName = (OwnedServerName, Option<String>);

/// A former key of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldKey {
    /// Its id.
    pub id: String,
    /// The key.
    pub public_key: [u8; 32],
    /// When it was used last, in milliseconds of Unix time.
    pub expired_ms: u64,
}

/// The signing keys of servers.
pub struct ServerKeys {
    server_name: OwnedServerName,
    signing_key: Arc<KeyPair>,
    former: Vec<OldKey>,
    client: Arc<Client>,
    cluster: Arc<Cluster>,
    clock: SharedClock,
    notaries: Vec<OwnedServerName>,
    own: Mutex<Option<(u64, Map<String, Value>)>>,
    cache: Cache<OwnedServerName, Arc<Known>>,
    failures: Cache<OwnedServerName, Failure>,
    missing: Cache<(OwnedServerName, String), u64>,
    fetches: DashMap<FetchName, Waiting>,
    network: Semaphore,
}

/// A server whose keys could not be had.
#[derive(Clone, Copy, Debug)]
struct Failure {
    failed_ms: u64,
    /// How long it is left alone.
    rest_ms: u64,
}

impl Failure {
    fn until_ms(self) -> u64 {
        self.failed_ms.saturating_add(self.rest_ms)
    }
}

impl ServerKeys {
    /// The keys as this server knows them. `notaries` are asked for what servers do not give themselves; `former` are
    /// this server's own keys of earlier times.
    pub fn new(
        signing_key: Arc<KeyPair>,
        former: Vec<OldKey>,
        client: Arc<Client>,
        cluster: Arc<Cluster>,
        clock: SharedClock,
        notaries: Vec<OwnedServerName>,
    ) -> Arc<Self> {
        let server_name = client.server_name().to_owned();
        let notaries = notaries.into_iter().filter(|name| *name != server_name).collect();
        Arc::new(Self {
            server_name,
            signing_key,
            former,
            client,
            cluster,
            clock,
            notaries,
            own: Mutex::new(None),
            cache: Cache::new(CACHED_SERVERS),
            failures: Cache::new(FAILURES_MAX),
            missing: Cache::new(FAILURES_MAX),
            fetches: DashMap::new(),
            network: Semaphore::new(FETCHES_MAX),
        })
    }

    /// A key that its server uses now: what signs requests.
    pub async fn key_now(self: &Arc<Self>, server: &ServerName, id: &str) -> Option<[u8; 32]> {
        let now_ms = self.clock.now_ms();
        if self.known_at(server, id, now_ms).is_none() {
            self.is_present(server);
        }
        self.key_at(server, id, now_ms).await
    }

    /// A key that its server used at a time (milliseconds of Unix time): what signs events. In room versions before 5 it
    /// does not count when a key was valid; 0 asks so.
    pub async fn key_at(self: &Arc<Self>, server: &ServerName, id: &str, at_ms: u64) -> Option<[u8; 32]> {
        if let Some(key) = self.known_at(server, id, at_ms) {
            return Some(key);
        }
        if *server == self.server_name
            || !id.starts_with("ed25519:")
            || at_ms > self.clock.now_ms().saturating_add(VALIDITY_MAX_MS)
        {
            return None;
        }
        if let Some(key) = self.refetch(server, id, at_ms).await {
            return Some(key);
        }
        self.ask_notaries(server, id, at_ms).await
    }

    /// Many keys at once, each valid at its time. What is asked of other servers is one key at its latest possible time,
    /// so that a hundred events cost no more questions than one.
    pub async fn keys(self: &Arc<Self>, wanted: &[KeyAt]) -> HashMap<KeyAt, [u8; 32]> {
        let possible_ms = self.clock.now_ms().saturating_add(VALIDITY_MAX_MS);
        let mut latest = Wanted::new();
        for (server, id, at_ms) in wanted.iter().filter(|(_, _, at_ms)| *at_ms <= possible_ms) {
            let at = latest
                .entry(server.clone())
                .or_default()
                .entry(id.clone())
                .or_default();
            *at = (*at).max(*at_ms);
        }
        self.ask_notaries_for_many(&latest).await;
        let each: Vec<_> = latest
            .into_iter()
            .flat_map(|(server, ids)| ids.into_iter().map(move |(id, at)| (server.clone(), id, at)))
            .collect();
        let asked = stream::iter(each).map(|(server, id, at_ms)| async move {
            let key = self.key_at(&server, &id, at_ms).await;
            ((server, id, at_ms), key)
        });
        let asked: HashMap<KeyAt, Option<[u8; 32]>> = asked.buffer_unordered(FETCHES_MAX).collect().await;
        let at = |name: &KeyAt| match asked.get(name) {
            Some(key) => *key,
            // The question for the latest time has brought what is known of earlier ones.
            None => self.known_at(&name.0, &name.1, name.2),
        };
        let found = wanted.iter().filter_map(|name| Some((name.clone(), at(name)?)));
        found.collect()
    }

    /// A key as far as it is known without asking anybody.
    fn known_at(&self, server: &ServerName, id: &str, at_ms: u64) -> Option<[u8; 32]> {
        if *server == self.server_name {
            if id == self.signing_key.key_id() {
                return Some(self.signing_key.public_key());
            }
            let former = self
                .former
                .iter()
                .find(|old| old.id == id && at_ms <= old.expired_ms);
            return former.map(|old| old.public_key);
        }
        self.known(server).key(id, at_ms)
    }

    /// Our own document for `GET /_matrix/key/v2/server`.
    pub fn own_document(&self) -> Map<String, Value> {
        let now_ms = self.clock.now_ms();
        let mut own = self.own.lock();
        if let Some((made_ms, document)) = &*own
            && (*made_ms..made_ms.saturating_add(OWN_REMAKE_MS)).contains(&now_ms)
        {
            return document.clone();
        }
        let valid_until_ms = now_ms.saturating_add(OWN_VALIDITY_MS);
        let document = document::own(&self.server_name, &self.signing_key, &self.former, valid_until_ms);
        *own = Some((now_ms, document.clone()));
        document
    }

    /// The documents of a server with our signature beside its own, as a notary gives them. `wanted` are key ids with the
    /// time until which they should be valid (now, where there is none); none of them asks for all keys.
    pub async fn notarize(
        self: &Arc<Self>,
        server: &ServerName,
        wanted: &BTreeMap<String, Option<u64>>,
        minimum_valid_until_ms: Option<u64>,
    ) -> Vec<Map<String, Value>> {
        if *server == self.server_name {
            return vec![self.own_document()];
        }
        let now_ms = self.clock.now_ms();
        let until_ms = wanted.values().map(|at| at.unwrap_or(now_ms)).max();
        let until_ms = until_ms.or(minimum_valid_until_ms).unwrap_or(now_ms);
        let mut known = self.known(server);
        // What was valid long ago needs no new question if we have the key.
        let has_all = !wanted.is_empty()
            && wanted
                .iter()
                .all(|(id, at)| known.key(id, at.unwrap_or(now_ms)).is_some());
        if !has_all && !known.is_fresh(now_ms, until_ms) {
            self.fetch_from_itself(server).await;
            known = self.known(server);
        }
        let mut documents = Vec::new();
        if wanted.is_empty() {
            documents = known.documents(None);
        }
        for id in wanted.keys() {
            for document in known.documents(Some(id)) {
                if !documents.contains(&document) {
                    documents.push(document);
                }
            }
        }
        if documents.is_empty() {
            documents.extend(known.documents(None).first());
        }
        let signed = documents.into_iter().filter_map(|document| {
            let mut json = document.json.clone();
            hearth_events::sign_json(&mut json, self.server_name.as_str(), &self.signing_key).ok()?;
            Some(json)
        });
        signed.collect()
    }

    /// As [`ServerKeys::notarize`], for several servers.
    pub async fn notarize_many(
        self: &Arc<Self>,
        wanted: BTreeMap<OwnedServerName, BTreeMap<String, Option<u64>>>,
    ) -> Vec<Map<String, Value>> {
        let servers = stream::iter(wanted.into_iter().take(NOTARIZE_MAX_SERVERS));
        let documents = servers
            .map(|(server, ids)| async move { self.notarize(&server, &ids, None).await })
            .buffered(NOTARIZE_AT_ONCE);
        documents.map(stream::iter).flatten().collect().await
    }

    /// What is known of a server without asking anybody.
    pub(crate) fn known(&self, server: &ServerName) -> Arc<Known> {
        if let Some(known) = self.cache.get(server) {
            return known;
        }
        let known = Arc::new(self.load(server));
        // A server of which nothing is known takes no place: names can be made up.
        if known.fetched_ms().is_some() {
            self.cache.insert(server.to_owned(), known.clone());
        }
        known
    }

    fn load(&self, server: &ServerName) -> Known {
        let key = key_of(server);
        let stored = self.cluster.log().engine().get(Family::ServerKey, &key);
        let stored = stored.and_then(|value| {
            value
                .map(|value| record::decode::<StoredKnown>(&value))
                .transpose()
        });
        match stored {
            Ok(Some(stored)) => Known::from_stored(stored, server),
            Ok(None) => Known::default(),
            Err(error) => {
                // They are fetched again.
                tracing::warn!(%server, %error, "the stored keys of a server cannot be read");
                Known::default()
            }
        }
    }

    /// A key as its server gives it, for notaries.
    pub(crate) async fn key_from_itself(self: &Arc<Self>, server: &ServerName, id: &str) -> Option<[u8; 32]> {
        let now_ms = self.clock.now_ms();
        match self.known(server).key(id, now_ms) {
            Some(key) => Some(key),
            None => self.refetch(server, id, now_ms).await,
        }
    }

    /// Asks a server again for a key that is not known, unless it was asked a moment ago.
    async fn refetch(self: &Arc<Self>, server: &ServerName, id: &str, at_ms: u64) -> Option<[u8; 32]> {
        self.fetch_from_itself(server).await;
        self.known(server).key(id, at_ms)
    }

    async fn fetch_from_itself(self: &Arc<Self>, server: &ServerName) {
        let now_ms = self.clock.now_ms();
        let asked_lately = self
            .known(server)
            .fetched_ms()
            .is_some_and(|fetched_ms| now_ms < fetched_ms.saturating_add(REFETCH_MIN_MS));
        let failed_lately = self
            .failures
            .get(server)
            .is_some_and(|failure| failure.until_ms() > now_ms);
        if asked_lately || failed_lately {
            return;
        }
        let (keys, name) = (self.clone(), server.to_owned());
        self.once((name.clone(), None), async move {
            let Ok(_place) = keys.network.acquire().await else {
                return;
            };
            if fetch::from_itself(&keys, &name).await {
                keys.failures.remove(&name);
            } else {
                keys.failed(&name);
            }
        })
        .await;
    }

    fn failed(&self, server: &ServerName) {
        let last_ms = self.failures.get(server).map(|failure| failure.rest_ms);
        let rest_ms = last_ms.map_or(FAILURE_FIRST_MS, |last_ms| (last_ms * 2).min(FAILURE_MAX_MS));
        let failure = Failure {
            failed_ms: self.clock.now_ms(),
            rest_ms,
        };
        self.failures.insert(server.to_owned(), failure);
    }

    /// A server makes a request: that it was away for long does not keep it from being asked for its keys.
    fn is_present(&self, server: &ServerName) {
        let failure = self.failures.get(server);
        if let Some(failure) = failure.filter(|failure| failure.rest_ms > FAILURE_OF_PRESENT_MAX_MS) {
            let rest_ms = FAILURE_OF_PRESENT_MAX_MS;
            self.failures
                .insert(server.to_owned(), Failure { rest_ms, ..failure });
        }
    }

    async fn ask_notaries(self: &Arc<Self>, server: &ServerName, id: &str, at_ms: u64) -> Option<[u8; 32]> {
        let name = (server.to_owned(), id.to_owned());
        let missing_until_ms = self.missing.get(&name).unwrap_or_default();
        if self.notaries.is_empty() || missing_until_ms > self.clock.now_ms() {
            return None;
        }
        let (keys, one) = (self.clone(), server.to_owned());
        let wanted = Wanted::from([(one, BTreeMap::from([(id.to_owned(), at_ms)]))]);
        self.once((server.to_owned(), Some(id.to_owned())), async move {
            if let Ok(_place) = keys.network.acquire().await {
                fetch::from_notaries(&keys, wanted).await;
            }
        })
        .await;
        let key = self.known(server).key(id, at_ms);
        if key.is_none() {
            self.missing
                .insert(name, self.clock.now_ms().saturating_add(MISSING_MS));
        }
        key
    }

    /// With many servers to ask, the notaries are asked first.
    async fn ask_notaries_for_many(self: &Arc<Self>, wanted: &Wanted) {
        let mut lacking = wanted.clone();
        lacking.retain(|server, ids| {
            ids.retain(|id, at_ms| self.known(server).key(id, *at_ms).is_none());
            !ids.is_empty() && *server != self.server_name
        });
        if self.notaries.is_empty() || lacking.len() <= NOTARIES_FIRST_ABOVE_SERVERS {
            return;
        }
        let mut lacking = lacking.into_iter().peekable();
        while lacking.peek().is_some() {
            let batch: Wanted = lacking.by_ref().take(NOTARY_BATCH_SERVERS).collect();
            fetch::from_notaries(self, batch).await;
        }
    }

    /// Adds a document to what is known, in memory and in storage.
    pub(crate) async fn remember(&self, server: &ServerName, document: Document, from_itself: bool) {
        let mut known = (*self.known(server)).clone();
        known.add(document, self.clock.now_ms(), from_itself);
        let value = record::encode(&known.to_stored());
        self.cache.insert(server.to_owned(), Arc::new(known));
        if self.cluster.log().check_writable().is_err() {
            return;
        }
        let mut batch = Batch::new();
        batch.put(Family::ServerKey, key_of(server), value);
        let stored = self
            .cluster
            .commit(slot_of(server.as_str()), |_| Record {
                batch,
                ..Record::default()
            })
            .await;
        if let Err(error) = stored {
            // They are in memory, and fetched again after a restart.
            tracing::warn!(%server, %error, "the keys of a server could not be stored");
        }
    }

    /// Runs a fetch, or waits for the one of this name that runs. It goes on where the one who waits gives up.
    async fn once(self: &Arc<Self>, name: FetchName, work: impl Future<Output = ()> + Send + 'static) {
        if self.fetches.len() >= FETCHES_WAITING_MAX {
            return;
        }
        let (waiting, done) = match self.fetches.entry(name.clone()) {
            Entry::Occupied(running) => (running.get().clone(), None),
            Entry::Vacant(place) => {
                let (done, waiting) = oneshot::channel();
                let waiting = waiting.shared();
                place.insert(waiting.clone());
                (waiting, Some(done))
            }
        };
        if let Some(done) = done {
            let running = Running {
                keys: self.clone(),
                name,
                _done: done,
            };
            tasks::spawn("fetch of server keys", async move {
                let _running = running;
                work.await;
            });
        }
        // The sender is dropped at the end, which counts.
        let _ = waiting.await;
    }
}

/// Ends a fetch, also one that panicked: the name is free again, then those who wait go on.
struct Running {
    keys: Arc<ServerKeys>,
    name: FetchName,
    _done: oneshot::Sender<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.keys.fetches.remove(&self.name);
    }
}

fn key_of(server: &ServerName) -> Vec<u8> {
    ServerKeyKey {
        slot: slot_of(server.as_str()),
        server: server.as_str().into(),
    }
    .encode()
}

#[cfg(test)]
mod tests;
