//! Places for files that come from other servers: a file is in memory as a whole until it is on the disk, and another server
//! can give large ones slowly.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// So many files come at once, so that the largest take about a gigabyte and a half,
const AT_ONCE_MAX: usize = 32;
/// and so many of them from one server: it takes more than three that are slow to hold up the others.
const OF_SERVER_MAX: usize = 8;
/// So long a file waits for its place.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Servers of which no file comes now are forgotten above this number.
const SERVERS_MAX: usize = 1_000;

/// The places.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    by_server: Mutex<HashMap<OwnedServerName, Weak<Semaphore>>>,
}

/// A place, until the file is on the disk or given up.
pub(crate) struct Place {
    _of_server: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            by_server: Mutex::default(),
        }
    }
}

impl Places {
    /// A place for a file of a server; waits for a while until there is one.
    pub async fn place(&self, server: &ServerName) -> Result<Place, Error> {
        let own = self.of_server(server);
        let all = self.all.clone();
        let place = async move {
            let never_closed = "the semaphore is never closed";
            // The server's own first: while it waits for that it holds up nobody else.
            let of_server = own.acquire_owned().await.expect(never_closed);
            let of_all = all.acquire_owned().await.expect(never_closed);
            Place {
                _of_server: of_server,
                _of_all: of_all,
            }
        };
        let place = tokio::time::timeout(WAIT_MAX, place).await;
        place.map_err(|_| Error::Remote("too many files of other servers are on their way".to_owned()))
    }

    fn of_server(&self, server: &ServerName) -> Arc<Semaphore> {
        let mut by_server = self.by_server.lock();
        if let Some(own) = by_server.get(server).and_then(Weak::upgrade) {
            return own;
        }
        if by_server.len() >= SERVERS_MAX {
            by_server.retain(|_, own| own.strong_count() > 0);
        }
        let own = Arc::new(Semaphore::new(OF_SERVER_MAX));
        by_server.insert(server.to_owned(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use futures::{FutureExt as _, future::join_all};

    use super::*;
    use crate::tests::bench;
    use crate::{MediaId, RemoteContent, RemoteMedia};

    fn server(name: &str) -> OwnedServerName {
        ServerName::parse(name).expect("a name")
    }

    #[tokio::test]
    async fn a_slow_server_holds_up_itself() {
        let places = Places::default();
        let place = async |name: &str| places.place(&server(name)).await.expect("a place");
        let mut held = Vec::new();
        for _ in 0..OF_SERVER_MAX {
            held.push(place("slow").await);
        }
        assert!(place("slow").now_or_never().is_none());
        for number in held.len()..AT_ONCE_MAX {
            held.push(place(&format!("s{number}")).await);
        }
        assert!(place("late").now_or_never().is_none());
        held.pop();
        drop(place("late").await);
        held.clear();
        drop(place("slow").await);
    }

    /// A server that says how many files are on their way.
    struct Counting {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    #[async_trait]
    impl RemoteMedia for Counting {
        async fn fetch(&self, _: &MediaId, _: Duration) -> Result<RemoteContent, Error> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            Ok(RemoteContent {
                content_type: None,
                file_name: None,
                body: Box::pin(futures::stream::empty()),
            })
        }
    }

    #[tokio::test]
    async fn so_many_files_of_a_server_come_at_once() {
        let bench = bench(16);
        let counting = Arc::new(Counting {
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        bench.store.set_remote(counting.clone());
        let media: Vec<_> = (0..3 * OF_SERVER_MAX)
            .map(|number| MediaId::new("elsewhere.org", &number.to_string()).expect("an id"))
            .collect();
        let found = join_all(media.iter().map(|media| bench.bytes_of(media))).await;
        assert!(found.iter().all(Result::is_ok));
        assert_eq!(counting.most.load(Ordering::SeqCst), OF_SERVER_MAX);
    }
}
