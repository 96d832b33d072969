//! Which servers did not answer lately. It is only a memory of this process: whoever starts anew tries again.

use hearth_core::SharedClock;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};

/// After the first failure a server is left alone for this long. Short, as it may have been one lost packet; long enough
/// that a person who opens five rooms of a dead server waits for it once.
const FIRST_REST_MS: u64 = 10_000;
/// The rest doubles up to this.
const REST_MAX_MS: u64 = 300_000;
/// So many servers are remembered: more than a large server talks to at a time. Who is forgotten is asked again.
const SERVERS_MAX: usize = 20_000;

/// The memory of servers that did not answer.
pub(crate) struct Reachability {
    clock: SharedClock,
    resting: Cache<OwnedServerName, Rest>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    until_ms: u64,
    last_ms: u64,
}

impl Reachability {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            resting: Cache::new(SERVERS_MAX),
        }
    }

    /// How much longer the server is left alone.
    pub(crate) fn resting(&self, server: &ServerName) -> Option<u64> {
        let rest = self.resting.get(server)?;
        rest.until_ms
            .checked_sub(self.clock.now_ms())
            .filter(|left| *left > 0)
    }

    /// The server did not answer. Failures of requests that were sent together count once.
    pub(crate) fn failed(&self, server: &ServerName) {
        let now_ms = self.clock.now_ms();
        let rest_ms = match self.resting.get(server) {
            Some(rest) if rest.until_ms > now_ms => return,
            Some(rest) => rest.last_ms.saturating_mul(2).min(REST_MAX_MS),
            None => FIRST_REST_MS,
        };
        let rest = Rest {
            until_ms: now_ms.saturating_add(rest_ms),
            last_ms: rest_ms,
        };
        self.resting.insert(server.to_owned(), rest);
    }

    /// The server answered, or sent something itself.
    pub(crate) fn answered(&self, server: &ServerName) {
        // Most servers are not here, and looking is cheaper than taking the lock for a removal.
        if self.resting.get(server).is_some() {
            self.resting.remove(server);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hearth_core::clock::ManualClock;

    use super::*;

    #[test]
    fn the_rest_grows_and_ends() {
        let clock = Arc::new(ManualClock::new(1_000));
        let reachability = Reachability::new(clock.clone());
        let server = ServerName::parse("a.example").unwrap();
        let resting = || reachability.resting(&server);
        assert_eq!(resting(), None);
        reachability.failed(&server);
        assert_eq!(resting(), Some(FIRST_REST_MS));
        reachability.failed(&server);
        assert_eq!(resting(), Some(FIRST_REST_MS), "together they count once");
        let mut expected_ms = FIRST_REST_MS;
        for _ in 0..10 {
            clock.advance(expected_ms);
            assert_eq!(resting(), None);
            reachability.failed(&server);
            expected_ms = (expected_ms * 2).min(REST_MAX_MS);
            assert_eq!(resting(), Some(expected_ms));
        }
        reachability.answered(&server);
        assert_eq!(resting(), None);
        reachability.failed(&server);
        assert_eq!(resting(), Some(FIRST_REST_MS));
    }
}
