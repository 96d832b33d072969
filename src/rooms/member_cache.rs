//! The memberships that are asked for with each message and each sync, in memory.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::head::StateEntry;

/// How many users a room keeps; beyond it the cache starts afresh.
const USERS_MAX: usize = 256;

/// What the current state of a room says of some users.
#[derive(Debug, Default)]
pub(crate) struct MemberCache(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// How often something changed.
    changes: u64,
    entries: HashMap<String, Option<StateEntry>>,
    /// The room's numbers for their state keys, which never change.
    keys: HashMap<String, u32>,
}

impl MemberCache {
    /// What is kept of a user; `read` reads it where nothing is.
    pub(crate) fn entry<E>(
        &self,
        user: &str,
        read: impl FnOnce() -> Result<Option<StateEntry>, E>,
    ) -> Result<Option<StateEntry>, E> {
        let changes = {
            let cache = self.0.lock();
            if let Some(entry) = cache.entries.get(user) {
                return Ok(*entry);
            }
            cache.changes
        };
        let entry = read()?;
        let mut cache = self.0.lock();
        // What was read before a change may be what the change made old.
        if cache.changes == changes {
            if cache.entries.len() >= USERS_MAX {
                cache.entries.clear();
            }
            cache.entries.insert(user.to_owned(), entry);
        }
        Ok(entry)
    }

    /// The room's number for a user's state key; `read` reads it where it is not kept.
    pub(crate) fn key<E>(
        &self,
        user: &str,
        read: impl FnOnce() -> Result<Option<u32>, E>,
    ) -> Result<Option<u32>, E> {
        if let Some(key) = self.0.lock().keys.get(user) {
            return Ok(Some(*key));
        }
        let key = read()?;
        if let Some(key) = key {
            let mut cache = self.0.lock();
            if cache.keys.len() >= USERS_MAX {
                cache.keys.clear();
            }
            cache.keys.insert(user.to_owned(), key);
        }
        Ok(key)
    }

    /// The state of these users is another one, and readable.
    pub(crate) fn changed(&self, users: &[String]) {
        if users.is_empty() {
            return;
        }
        let mut cache = self.0.lock();
        cache.changes += 1;
        for user in users {
            cache.entries.remove(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::Membership;

    fn entry(short: u32) -> Option<StateEntry> {
        Some(StateEntry {
            short,
            membership: Membership::Join,
        })
    }

    #[test]
    fn it_reads_once_until_something_changes() {
        let (cache, reads) = (MemberCache::default(), Cell::new(0));
        let read = || {
            reads.set(reads.get() + 1);
            Ok::<_, ()>(entry(reads.get()))
        };
        assert_eq!(cache.entry("@a:x", read), Ok(entry(1)));
        assert_eq!(cache.entry("@a:x", read), Ok(entry(1)));
        cache.changed(&["@b:x".to_owned()]);
        assert_eq!(cache.entry("@a:x", read), Ok(entry(1)));
        cache.changed(&["@a:x".to_owned()]);
        assert_eq!(cache.entry("@a:x", read), Ok(entry(2)));
        assert_eq!(cache.entry("@c:x", || Err(())), Err(()));
        assert_eq!(cache.entry("@c:x", || Ok::<_, ()>(None)), Ok(None));
        assert_eq!(cache.entry("@c:x", read), Ok(None), "absence is known too");
        assert_eq!(cache.key("@a:x", || Ok::<_, ()>(None)), Ok(None));
        assert_eq!(cache.key("@a:x", || Ok::<_, ()>(Some(4))), Ok(Some(4)));
        assert_eq!(cache.key("@a:x", || Err(())), Ok(Some(4)));
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let cache = MemberCache::default();
        let old = cache.entry("@a:x", || {
            cache.changed(&["@a:x".to_owned()]);
            Ok::<_, ()>(entry(1))
        });
        assert_eq!(old, Ok(entry(1)));
        assert_eq!(cache.entry("@a:x", || Ok::<_, ()>(entry(2))), Ok(entry(2)));
    }

    #[test]
    fn it_is_bounded() {
        let cache = MemberCache::default();
        for at in 0..10_000 {
            let user = format!("@u{at}:x");
            let _ = cache.entry(&user, || Ok::<_, ()>(None));
            let _ = cache.key(&user, || Ok::<_, ()>(Some(at)));
            let cache = cache.0.lock();
            assert!(cache.entries.len() <= USERS_MAX && cache.keys.len() <= USERS_MAX);
        }
    }
}
