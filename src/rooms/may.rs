//! Whether a room may have rows of some kind that most rooms never have: asked on the way of every event or sync, it
//! must not be a look into storage each time.

use std::sync::atomic::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
const NONE: u8 = 1;
const SOME: u8 = 2;

/// Not known until somebody looked.
#[derive(Debug, Default)]
pub(crate) struct May(AtomicU8);

impl May {
    /// Rows come to be: to be called before they are.
    pub(crate) fn come(&self) {
        self.0.store(SOME, Ordering::Release);
    }

    /// Whether there may be some; `look` looks, the first time.
    pub(crate) fn be<E>(&self, look: impl FnOnce() -> Result<bool, E>) -> Result<bool, E> {
        match self.0.load(Ordering::Acquire) {
            NONE => return Ok(false),
            SOME => return Ok(true),
            _ => {}
        }
        let found = if look()? { SOME } else { NONE };
        // What came to be meanwhile was announced, and stays so.
        let before = self
            .0
            .compare_exchange(UNKNOWN, found, Ordering::AcqRel, Ordering::Acquire);
        Ok(before.map_or_else(|set| set, |_| found) == SOME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_once_and_hears_of_what_comes() {
        let never = || -> Result<bool, ()> { panic!("it is known") };
        let may = May::default();
        assert_eq!(may.be(|| Err(())), Err(()));
        assert_eq!(may.be(|| Ok::<_, ()>(false)), Ok(false));
        assert_eq!(may.be(never), Ok(false));
        may.come();
        assert_eq!(may.be(never), Ok(true));
        let may = May::default();
        let look = || {
            may.come();
            Ok::<_, ()>(false)
        };
        assert_eq!(may.be(look), Ok(true), "it came while somebody looked");
    }
}
