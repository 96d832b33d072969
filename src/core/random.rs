//! The random source that everything takes by injection.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::SysRng;
use rand::{Rng, SeedableRng, TryRng};
use rand_chacha::ChaCha20Rng;

/// A source of random bytes, fit for secrets in production.
pub trait Random: Send + Sync {
    /// Fills the whole slice.
    fn fill(&self, out: &mut [u8]);
}

/// The random source as it is handed around.
pub type SharedRandom = Arc<dyn Random>;

/// The operating system's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, out: &mut [u8]) {
        // Without entropy every token and key would be guessable: stopping is the only safe answer.
        SysRng
            .try_fill_bytes(out)
            .expect("the operating system has a random source");
    }
}

/// A repeatable source for tests and simulations. Never for secrets.
pub struct SeededRandom(Mutex<ChaCha20Rng>);

impl SeededRandom {
    /// The source that this seed always gives.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(ChaCha20Rng::seed_from_u64(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().fill_bytes(out);
    }
}

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A string of `len` letters and digits, each equally likely (5.95 bits a character).
pub fn alphanumeric(random: &dyn Random, len: usize) -> String {
    // Bytes from the last, incomplete round of 62 are thrown away: a plain modulo would favor the
    // first letters.
    const LIMIT: u8 = (256 / 62 * 62) as u8;
    let mut out = String::with_capacity(len);
    let mut bytes = [0u8; 32];
    while out.len() < len {
        random.fill(&mut bytes);
        let wanted = len - out.len();
        let letters = bytes.iter().filter(|b| **b < LIMIT).take(wanted);
        out.extend(letters.map(|b| char::from(ALPHABET[usize::from(*b) % 62])));
    }
    out
}

/// A random integer, for jitter and names.
pub fn u64(random: &dyn Random) -> u64 {
    let mut bytes = [0u8; 8];
    random.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_seeds_differ() {
        let text = |seed| alphanumeric(&SeededRandom::new(seed), 40);
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
        assert_eq!(text(1).len(), 40);
    }

    #[test]
    fn letters_are_evenly_spread() {
        let text = alphanumeric(&SeededRandom::new(3), 62_000);
        for letter in ALPHABET {
            let count = text.bytes().filter(|b| b == letter).count();
            assert!(
                (850..1_150).contains(&count),
                "{} came {count} times",
                char::from(*letter)
            );
        }
    }

    #[test]
    fn the_system_source_works() {
        assert_ne!(alphanumeric(&OsRandom, 20), alphanumeric(&OsRandom, 20));
    }
}
