//! Locks by name: for operations on one media item or one file that must not overlap.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Above this many names those that nobody holds are dropped.
const SWEEP_ABOVE_NAMES: usize = 256;

/// A lock for every name. Names come and go; only those in use take memory.
#[derive(Default)]
pub(crate) struct Locks {
    names: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Locks {
    /// Waits for the lock of this name.
    pub async fn lock(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = self.get(name);
        lock.lock_owned().await
    }

    /// The lock of this name, if nobody holds it.
    pub fn try_lock(&self, name: &str) -> Option<OwnedMutexGuard<()>> {
        self.get(name).try_lock_owned().ok()
    }

    fn get(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut names = self.names.lock();
        if let Some(lock) = names.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        if names.len() > SWEEP_ABOVE_NAMES {
            names.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::default();
        names.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_holder_a_name_and_no_memory_of_old_names() {
        let locks = Locks::default();
        let first = locks.lock("a").await;
        let _other = locks.lock("b").await;
        assert!(locks.get("a").try_lock().is_err());
        drop(first);
        assert!(locks.get("a").try_lock().is_ok());
        for number in 0..10_000 {
            drop(locks.lock(&number.to_string()).await);
        }
        assert!(locks.names.lock().len() <= SWEEP_ABOVE_NAMES + 1);
    }
}
