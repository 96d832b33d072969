//! Nonces, each good for one registration by shared secret.

use std::collections::HashMap;

use hearth_core::random::alphanumeric;
use hearth_core::{SharedClock, SharedRandom};
use parking_lot::Mutex;

/// How long a nonce is good: a program computes its answer at once.
const NONCE_LIFETIME_MS: u64 = 60_000;
/// The most open nonces. Anybody can ask for one, so beyond this the oldest give way.
const NONCES_MAX: usize = 10_000;

/// The nonces that were given out and not used.
pub struct Nonces {
    clock: SharedClock,
    random: SharedRandom,
    open: Mutex<HashMap<String, u64>>,
}

impl Nonces {
    /// None is open.
    pub fn new(clock: SharedClock, random: SharedRandom) -> Self {
        Self {
            clock,
            random,
            open: Mutex::default(),
        }
    }

    /// Gives out a nonce.
    pub fn issue(&self) -> String {
        let now = self.clock.now_ms();
        let nonce = alphanumeric(self.random.as_ref(), 32);
        let mut open = self.open.lock();
        if open.len() >= NONCES_MAX {
            open.retain(|_, expires| *expires > now);
        }
        if open.len() >= NONCES_MAX {
            let oldest = open
                .iter()
                .min_by_key(|(_, expires)| **expires)
                .map(|(nonce, _)| nonce.clone());
            oldest.and_then(|nonce| open.remove(&nonce));
        }
        open.insert(nonce.clone(), now + NONCE_LIFETIME_MS);
        nonce
    }

    /// Uses a nonce up; false if it was not open.
    pub fn take(&self, nonce: &str) -> bool {
        let expires = self.open.lock().remove(nonce);
        expires.is_some_and(|expires| expires > self.clock.now_ms())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hearth_core::clock::ManualClock;
    use hearth_core::random::SeededRandom;

    use super::*;

    #[test]
    fn a_nonce_is_good_once_and_for_a_minute() {
        let clock = Arc::new(ManualClock::new(0));
        let nonces = Nonces::new(clock.clone(), Arc::new(SeededRandom::new(1)));
        let nonce = nonces.issue();
        assert!(nonces.take(&nonce));
        assert!(!nonces.take(&nonce));
        let late = nonces.issue();
        clock.advance(NONCE_LIFETIME_MS);
        assert!(!nonces.take(&late));
        for _ in 0..NONCES_MAX + 5 {
            nonces.issue();
        }
        assert_eq!(nonces.open.lock().len(), NONCES_MAX);
    }
}
