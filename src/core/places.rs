//! Places for what takes much memory, given to other servers or to users: each has so many, and all together have so many.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Servers that have no place now are forgotten above this number.
const SERVERS_MAX: usize = 1_000;

/// The places.
pub struct Places {
    all: Arc<Semaphore>,
    of_server: usize,
    by_server: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A place, until it is dropped.
pub struct Place {
    _of_server: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Places {
    /// So many places, and so many of them for one server.
    pub fn new(all: usize, of_server: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            of_server,
            by_server: Mutex::default(),
        }
    }

    /// A place for a server; waits until there is one.
    pub async fn place(&self, server: &str) -> Place {
        let own = self.own(server);
        let never_closed = "the semaphore is never closed";
        // The server's own first: while it waits for that it holds up nobody else.
        let of_server = own.acquire_owned().await.expect(never_closed);
        let of_all = self.all.clone().acquire_owned().await.expect(never_closed);
        Place {
            _of_server: of_server,
            _of_all: of_all,
        }
    }

    fn own(&self, server: &str) -> Arc<Semaphore> {
        let mut by_server = self.by_server.lock();
        if let Some(own) = by_server.get(server).and_then(Weak::upgrade) {
            return own;
        }
        if by_server.len() >= SERVERS_MAX {
            by_server.retain(|_, own| own.strong_count() > 0);
        }
        let own = Arc::new(Semaphore::new(self.of_server));
        by_server.insert(server.to_owned(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    /// A place that is there at once.
    fn free(places: &Places, server: &str) -> Option<Place> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(places.place(server)).poll(&mut context) {
            std::task::Poll::Ready(place) => Some(place),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn a_slow_server_holds_up_itself_and_all_have_so_many() {
        let places = Places::new(5, 2);
        let place = |name: &str| free(&places, name);
        let mut held = vec![place("slow"), place("slow")];
        assert!(place("slow").is_none());
        held.extend(["s1", "s2", "s3"].map(place));
        assert!(held.iter().all(Option::is_some));
        assert!(place("late").is_none());
        held.pop();
        assert!(place("late").is_some());
        held.clear();
        assert!(place("slow").is_some());
    }

    #[test]
    fn servers_without_places_are_forgotten() {
        let places = Places::new(10, 1);
        let held = free(&places, "held");
        for number in 0..2 * SERVERS_MAX {
            assert!(free(&places, &format!("s{number}")).is_some());
        }
        assert!(places.by_server.lock().len() <= SERVERS_MAX);
        assert!(free(&places, "held").is_none());
        drop(held);
    }
}
