//! Locks by name, for what is decided on stored data and has no writer of its own.

use tokio::sync::Mutex;

/// How many locks there are: two names share one only by chance, which costs a short wait.
const LOCKS: usize = 64;

/// A fixed set of locks, one of which belongs to each name.
pub(crate) struct NameLocks([Mutex<()>; LOCKS]);

impl Default for NameLocks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl NameLocks {
    /// The lock of a name.
    pub(crate) fn lock(&self, name: &str) -> &Mutex<()> {
        let slot = usize::from(hearth_storage::slot_of(name).get());
        &self.0[slot % LOCKS]
    }
}
