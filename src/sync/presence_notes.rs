//! Whose presence changed, noted with the users who may see it: so a sync looks at those alone, however many there are.

use std::collections::{BTreeMap, HashMap};

use ruma::{OwnedUserId, UserId};

/// So many users are noted; beyond it the oldest changes are forgotten, and whoever asks for them gets them the long way.
const NOTED_MAX: usize = 10_000;

/// The last change of each user's presence, by the counter of presence.
#[derive(Default)]
pub(crate) struct PresenceNotes {
    by_change: BTreeMap<u64, OwnedUserId>,
    by_user: HashMap<OwnedUserId, u64>,
    /// Everything after this counter is noted; none before the user's rooms are watched.
    floor: Option<u64>,
}

impl PresenceNotes {
    /// From now on everything after a counter is noted.
    pub(crate) fn begin(&mut self, floor: u64) {
        self.floor.get_or_insert(floor);
    }

    /// A user's presence changed.
    pub(crate) fn note(&mut self, user: &UserId, counter: u64) {
        let known = self.by_user.get(user).copied();
        // Two changes at once may be told in either order.
        if known.is_some_and(|known| known >= counter) {
            return;
        }
        if let Some(known) = known {
            self.by_change.remove(&known);
        }
        self.by_change.insert(counter, user.to_owned());
        self.by_user.insert(user.to_owned(), counter);
        while self.by_change.len() > NOTED_MAX
            && let Some((oldest, user)) = self.by_change.pop_first()
        {
            self.by_user.remove(&user);
            self.floor = self.floor.map(|floor| floor.max(oldest));
        }
    }

    /// Whose presence changed after a counter; none where that is not known here.
    pub(crate) fn after(&self, counter: u64) -> Option<Vec<OwnedUserId>> {
        if self.floor.is_none_or(|floor| counter < floor) {
            return None;
        }
        let changes = self.by_change.range(counter.saturating_add(1)..);
        Some(changes.map(|(_, user)| user.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn the_last_change_of_each_user_is_known() {
        let mut notes = PresenceNotes::default();
        let (a, b) = (user_id!("@a:x"), user_id!("@b:x"));
        notes.note(a, 3);
        assert_eq!(notes.after(2), None, "the rooms are not watched yet");
        notes.begin(2);
        notes.begin(9);
        assert_eq!(notes.after(1), None);
        assert_eq!(notes.after(2), Some(vec![a.to_owned()]));
        notes.note(b, 4);
        notes.note(a, 6);
        notes.note(a, 5);
        assert_eq!(notes.after(2), Some(vec![b.to_owned(), a.to_owned()]));
        assert_eq!(notes.after(4), Some(vec![a.to_owned()]));
        assert_eq!(notes.after(6), Some(vec![]));
    }

    #[test]
    fn they_are_bounded() {
        let mut notes = PresenceNotes::default();
        notes.begin(0);
        for at in 1..=NOTED_MAX as u64 + 3 {
            notes.note(&OwnedUserId::try_from(format!("@u{at}:x")).expect("an id"), at);
        }
        assert_eq!(notes.after(2), None);
        assert_eq!(notes.after(3).map(|users| users.len()), Some(NOTED_MAX));
        assert_eq!(notes.by_user.len(), NOTED_MAX);
    }
}
