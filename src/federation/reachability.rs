//! Which servers did not answer lately. It is only a memory of this process: whoever starts anew tries again.

use hearth_core::SharedClock;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};

use crate::client::Asker;

/// After the first failure a server is left alone for this long. Short, as it may have been one lost packet; long enough
/// that a person who opens five rooms of a dead server waits for it once.
const FIRST_REST_MS: u64 = 10_000;
/// The rest doubles up to this.
const REST_MAX_MS: u64 = 300_000;
/// A person who looks something up has a server asked again this long after it failed last, however long it rests.
const READER_REST_MS: u64 = 10_000;
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
    /// When it failed last, also while it rested.
    failed_ms: u64,
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
        left_ms(rest.until_ms, self.clock.now_ms())
    }

    /// How much longer it is left alone by one who asks.
    pub(crate) fn resting_for(&self, server: &ServerName, asker: Asker) -> Option<u64> {
        let rest = self.resting.get(server)?;
        let until_ms = match asker {
            Asker::Nobody => rest.until_ms,
            Asker::Reader => rest.until_ms.min(rest.failed_ms.saturating_add(READER_REST_MS)),
            Asker::Actor => return None,
        };
        left_ms(until_ms, self.clock.now_ms())
    }

    /// The server did not answer. Failures of requests that were sent together count once.
    pub(crate) fn failed(&self, server: &ServerName) {
        let now_ms = self.clock.now_ms();
        let rest = self.resting.get(server);
        let rest = match rest.filter(|rest| rest.until_ms > now_ms) {
            Some(resting) => Rest {
                failed_ms: now_ms,
                ..resting
            },
            None => {
                let rest_ms = rest.map_or(FIRST_REST_MS, |rest| {
                    rest.last_ms.saturating_mul(2).min(REST_MAX_MS)
                });
                Rest {
                    until_ms: now_ms.saturating_add(rest_ms),
                    last_ms: rest_ms,
                    failed_ms: now_ms,
                }
            }
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

fn left_ms(until_ms: u64, now_ms: u64) -> Option<u64> {
    until_ms.checked_sub(now_ms).filter(|left| *left > 0)
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
        let reading = || reachability.resting_for(&server, Asker::Reader);
        assert_eq!(reading(), Some(READER_REST_MS));
        clock.advance(READER_REST_MS);
        assert_eq!(reading(), None, "who looks something up does not wait for it");
        assert_eq!(reachability.resting_for(&server, Asker::Actor), None);
        reachability.failed(&server);
        assert_eq!(reading(), Some(READER_REST_MS), "it was asked and failed");
        assert_eq!(
            resting(),
            Some(REST_MAX_MS - READER_REST_MS),
            "its rest is no longer for it"
        );
        reachability.answered(&server);
        assert_eq!(resting(), None);
        reachability.failed(&server);
        assert_eq!(resting(), Some(FIRST_REST_MS));
    }
}
