//! What is kept in memory of the delayed events: whose they are, and when they are due.

use std::collections::{BTreeSet, HashMap};

use hearth_storage::EntityKey;

use super::DelayedEvent;

/// Everything about delayed events but their content.
#[derive(Default)]
pub(super) struct Index {
    by_id: HashMap<String, Entry>,
    /// Those that wait, of all users, by the time at which they are due.
    due: BTreeSet<(u64, String)>,
    users: HashMap<EntityKey, Own>,
}

struct Entry {
    user: EntityKey,
    txn: Option<String>,
    /// When it is due, or when it was done.
    at: (u64, bool),
    /// When it is tried next, where it waits: later than it is due once it was put off.
    tried_at: u64,
}

/// The delayed events of one user.
#[derive(Default)]
struct Own {
    waiting: BTreeSet<(u64, String)>,
    done: BTreeSet<(u64, String)>,
    txns: HashMap<String, String>,
}

impl Index {
    /// Whose a delayed event is.
    pub(super) fn user_of(&self, id: &str) -> Option<EntityKey> {
        self.by_id.get(id).map(|entry| entry.user)
    }

    /// The id that a user's transaction got.
    pub(super) fn of_txn(&self, user: EntityKey, txn: &str) -> Option<String> {
        self.users.get(&user)?.txns.get(txn).cloned()
    }

    /// How many of a user's events wait, and when the next is due.
    pub(super) fn waiting(&self, user: EntityKey) -> (usize, Option<u64>) {
        let Some(own) = self.users.get(&user) else {
            return (0, None);
        };
        (own.waiting.len(), own.waiting.first().map(|(due, _)| *due))
    }

    /// The ids of a user's events that wait, the next one first.
    pub(super) fn waiting_ids(&self, user: EntityKey) -> Vec<String> {
        let own = self.users.get(&user);
        own.map_or_else(Vec::new, |own| {
            own.waiting.iter().map(|(_, id)| id.clone()).collect()
        })
    }

    /// The event that is due next.
    pub(super) fn next(&self) -> Option<(u64, String)> {
        self.due.first().cloned()
    }

    /// Takes an event in as it is now.
    pub(super) fn put(&mut self, user: EntityKey, event: &DelayedEvent) {
        let id = &event.delay_id;
        self.remove(id);
        let own = self.users.entry(user).or_default();
        let at = match &event.done {
            Some(done) => {
                own.done.insert((done.ts, id.clone()));
                (done.ts, true)
            }
            None => {
                own.waiting.insert((event.due(), id.clone()));
                self.due.insert((event.due(), id.clone()));
                (event.due(), false)
            }
        };
        if let Some(txn) = &event.txn {
            own.txns.insert(txn.clone(), id.clone());
        }
        let entry = Entry {
            user,
            txn: event.txn.clone(),
            at,
            tried_at: at.0,
        };
        self.by_id.insert(id.clone(), entry);
    }

    /// Has an event that waits tried at another time, until the next start. The user's own list keeps the time that was
    /// asked for.
    pub(super) fn postpone(&mut self, id: &str, time: u64) {
        if let Some(entry) = self.by_id.get_mut(id).filter(|entry| !entry.at.1) {
            self.due.remove(&(entry.tried_at, id.to_owned()));
            entry.tried_at = time;
            self.due.insert((time, id.to_owned()));
        }
    }

    /// The users who have some that were done before a time.
    pub(super) fn done_before(&self, before: u64) -> Vec<EntityKey> {
        let old = |own: &Own| own.done.first().is_some_and(|(ts, _)| *ts < before);
        let users = self.users.iter().filter(|(_, own)| old(own));
        users.map(|(user, _)| *user).collect()
    }

    /// Forgets those of a user that were done before a time, or are more than `most`; their ids.
    pub(super) fn prune(&mut self, user: EntityKey, before: u64, most: usize) -> Vec<String> {
        let mut gone = Vec::new();
        while let Some(own) = self.users.get(&user)
            && let Some((ts, id)) = own.done.first()
            && (*ts < before || own.done.len() > most)
        {
            let id = id.clone();
            self.remove(&id);
            gone.push(id);
        }
        gone
    }

    /// Forgets an event.
    pub(super) fn remove(&mut self, id: &str) {
        let Some(entry) = self.by_id.remove(id) else {
            return;
        };
        let (at, done) = entry.at;
        self.due.remove(&(entry.tried_at, id.to_owned()));
        let Some(own) = self.users.get_mut(&entry.user) else {
            return;
        };
        let place = (at, id.to_owned());
        match done {
            true => own.done.remove(&place),
            false => own.waiting.remove(&place),
        };
        if let Some(txn) = &entry.txn {
            own.txns.remove(txn);
        }
        if own.waiting.is_empty() && own.done.is_empty() {
            self.users.remove(&entry.user);
        }
    }
}
