//! What is known of the keys of one server, and when they were valid. Pure.

use ruma::ServerName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::document::Document;

/// However long a document says that it is valid, it is used no longer than this after it was fetched: a stolen key that
/// was published with a far end could otherwise not be taken back (server-server API, "valid_until_ts").
pub(crate) const VALIDITY_MAX_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// The most documents that are kept of one server. Only those are kept that have a key which no newer one mentions.
const DOCUMENTS_MAX: usize = 5;

/// The documents of a server, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known(Vec<Held>);

#[derive(Clone, Debug, PartialEq)]
struct Held {
    document: Document,
    fetched_ms: u64,
}

/// As it is stored.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct StoredKnown {
    documents: Vec<StoredDocument>,
}

#[derive(Debug, Deserialize, Serialize)]
struct StoredDocument {
    fetched_ms: u64,
    document: Map<String, Value>,
}

impl Known {
    /// The key of this id, if it was valid at a time. What the newest document that mentions the key says counts.
    pub(crate) fn key(&self, id: &str, at_ms: u64) -> Option<[u8; 32]> {
        let held = self.0.iter().find(|held| held.document.mentions(id))?;
        let (key, until_ms) = match held.document.verify.get(id) {
            Some(key) => (*key, held.until_ms()),
            None => *held.document.old.get(id)?,
        };
        (until_ms >= at_ms).then_some(key)
    }

    /// When the newest document was fetched.
    pub(crate) fn fetched_ms(&self) -> Option<u64> {
        self.0.first().map(|held| held.fetched_ms)
    }

    /// Adds a document. One that comes from the server itself is the newest; of those that notaries give, the one that
    /// is valid longer.
    pub(crate) fn add(&mut self, document: Document, fetched_ms: u64, from_itself: bool) {
        let held = Held { document, fetched_ms };
        let newer = from_itself
            || self
                .0
                .first()
                .is_none_or(|first| held.document.valid_until_ms >= first.document.valid_until_ms);
        let place = if newer {
            0
        } else {
            let later = |other: &Held| other.document.valid_until_ms > held.document.valid_until_ms;
            // The first stays the first.
            1 + self.0[1..].iter().take_while(|other| later(other)).count()
        };
        self.0.insert(place, held);
        let all = std::mem::take(&mut self.0);
        for held in all {
            let mut ids = held.document.verify.keys().chain(held.document.old.keys());
            let adds = ids.any(|id| !self.0.iter().any(|newer| newer.document.mentions(id)));
            if self.0.len() < DOCUMENTS_MAX && (self.0.is_empty() || adds) {
                self.0.push(held);
            }
        }
    }

    /// The documents that answer the question for a key, or for all: newest first.
    pub(crate) fn documents(&self, id: Option<&str>) -> Vec<&Document> {
        let mut found = self.0.iter().map(|held| &held.document);
        match id {
            Some(id) => found.find(|document| document.mentions(id)).into_iter().collect(),
            None => found.collect(),
        }
    }

    /// Whether the newest document is still valid at a time and, as the specification asks of notaries, less than half
    /// of its life is over.
    pub(crate) fn is_fresh(&self, now_ms: u64, wanted_ms: u64) -> bool {
        self.0.first().is_some_and(|held| {
            let life_ms = held.until_ms().saturating_sub(held.fetched_ms);
            held.document.valid_until_ms >= wanted_ms && now_ms <= held.fetched_ms.saturating_add(life_ms / 2)
        })
    }

    /// As it is stored.
    pub(crate) fn to_stored(&self) -> StoredKnown {
        let documents = self.0.iter().map(|held| StoredDocument {
            fetched_ms: held.fetched_ms,
            document: held.document.json.clone(),
        });
        StoredKnown {
            documents: documents.collect(),
        }
    }

    /// Back from storage. A document that this version no longer reads is left out: it is fetched again.
    pub(crate) fn from_stored(stored: StoredKnown, server: &ServerName) -> Self {
        let read = stored.documents.into_iter().filter_map(|stored| {
            Some(Held {
                document: Document::check(stored.document, server).ok()?,
                fetched_ms: stored.fetched_ms,
            })
        });
        Self(read.take(DOCUMENTS_MAX).collect())
    }
}

impl Held {
    fn until_ms(&self) -> u64 {
        self.document
            .valid_until_ms
            .min(self.fetched_ms.saturating_add(VALIDITY_MAX_MS))
    }
}
