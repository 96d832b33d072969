//! Search in messages (Client-Server API, "Server Side Search").
//!
//! The words of unencrypted messages, room names and topics are kept in an index of their own, in a folder beside the
//! database. A duty follows the feed of every shard and brings the index up to date: a little behind by itself, and
//! before each search. How far it got is stored in the index with what it indexed, so that the two never disagree; an
//! index that is absent, damaged or too old is built anew from the rooms.
//!
//! **Invariant:** the index only proposes. What a search answers was read from its room, and the user may see it.

mod document;
mod duty;
mod error;
mod find;
mod index;
mod progress;
mod words;

use std::path::PathBuf;
use std::sync::Arc;

use hearth_core::{Pool, Shutdown};
use hearth_rooms::Rooms;
use hearth_storage::{Feed, Start};
use tokio::sync::Notify;

pub use error::Error;
pub use find::{Criteria, Found, Group, Hit, Order, Token};
pub use index::Fields;
pub use words::Term;
#[cfg(test)]
use words::words;

use duty::{DUTY, Work};
use index::TextIndex;
use progress::Progress;

/// What search needs of the server.
pub struct SearchParts {
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// Threads for indexing and searching.
    pub pool: Pool,
    /// Where the index lies; without a folder it is in memory, and built anew at each start.
    pub folder: Option<PathBuf>,
}

/// The index and who keeps it up to date.
pub struct Search {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) pool: Pool,
    /// Where the index is brought up to date.
    pub(crate) indexing: Pool,
    pub(crate) feed: Feed,
    pub(crate) index: TextIndex,
    /// Held by whoever brings the index up to date.
    pub(crate) work: Arc<tokio::sync::Mutex<Work>>,
    pub(crate) shutdown: Shutdown,
    /// Something was published.
    pub(crate) news: Arc<Notify>,
}

impl Search {
    /// Opens the index and makes the duty known to the feed. Nothing runs yet.
    pub fn open(parts: SearchParts, shutdown: Shutdown) -> Result<Arc<Self>, Error> {
        let log = parts.rooms.log().clone();
        let feed = Feed::new(&log);
        let mut index = TextIndex::open(parts.folder.as_deref())?;
        let progress = index.payload()?.and_then(|text| Progress::parse(&text));
        let progress = progress.filter(|progress| {
            let follows = |shard, published| {
                let at = progress.cursor(shard);
                feed.cursor(DUTY, shard) <= at && at <= published
            };
            // What the feed has let go, no longer waiting for this duty, the index would never learn of.
            feed.is_registered(DUTY)
                && log
                    .published_all()
                    .into_iter()
                    .all(|(shard, at)| follows(shard, at))
        });
        let progress = match progress {
            Some(progress) => progress,
            None => {
                index = index.emptied(parts.folder.as_deref())?;
                feed.unregister(DUTY)?;
                feed.register(DUTY, Start::Now)?;
                Progress::of_new_index(
                    log.published_all()
                        .into_iter()
                        .map(|(shard, _)| (shard, feed.cursor(DUTY, shard))),
                )
            }
        };
        let news = Arc::new(Notify::new());
        let noted = news.clone();
        log.on_publish(Box::new(move |_| noted.notify_one()));
        Ok(Arc::new(Self {
            rooms: parts.rooms,
            indexing: parts.pool.gentle("search-index")?,
            pool: parts.pool,
            feed,
            index,
            work: Arc::new(tokio::sync::Mutex::new(Work::new(progress, log.published_all()))),
            shutdown,
            news,
        }))
    }

    /// Lets the feed go where search is switched off, so that nothing waits for it.
    pub fn switch_off(rooms: &Rooms) -> Result<(), Error> {
        Ok(Feed::new(rooms.log()).unregister(DUTY)?)
    }
}

#[cfg(test)]
mod tests;
