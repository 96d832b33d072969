//! Presence in a sync: of the user and of those who share a room.

use std::collections::BTreeSet;

use hearth_rooms::Membership;
use hearth_users::{PresenceChanges, PresenceCounter, PresenceState};
use ruma::OwnedUserId;

use crate::{Error, SyncView, look::Look};

/// In how many newly joined rooms members are looked up one by one, for the presence of those who were
/// there before.
const NEW_ROOMS_MAX: usize = 20;

impl Look<'_> {
    /// Adds the presence that changed since the token, and that of users whom the client now sees for
    /// the first time.
    pub(crate) fn presence_news(&self, view: &mut SyncView) -> Result<(), Error> {
        let filter = &self.request.filter.presence;
        if !filter.has_type("m.presence") {
            return Ok(());
        }
        let presence = self.engine.users.presence();
        let mut changed: BTreeSet<OwnedUserId> = BTreeSet::new();
        for user in self.presence_changes() {
            if self.engine.notifier.share_a_room(self.index, &user)? {
                changed.insert(user);
            }
        }
        if self.since.is_some() {
            self.newly_seen(view, &mut changed)?;
        }
        let limit = filter
            .limit
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(usize::MAX);
        let wanted = changed
            .into_iter()
            .filter(|user| filter.has_sender(user) && !self.ignored.contains(user))
            .take(limit);
        view.presence = wanted.map(|user| (user.clone(), presence.get(&user))).collect();
        Ok(())
    }

    /// Whose presence may be news: those noted in the index, where it goes back to the token; else everybody's whose
    /// presence changed since, or all who are there.
    fn presence_changes(&self) -> Vec<OwnedUserId> {
        let presence = self.engine.users.presence();
        let Some((start, value)) = self.since.map(|since| since.presence) else {
            return presence.present();
        };
        let now = presence.counter();
        if start == now.start
            && value <= now.value
            && let Some(noted) = self.index.state.lock().presence.after(value)
        {
            return noted;
        }
        match presence.changed_since(PresenceCounter { start, value }) {
            PresenceChanges::Users(users) => users,
            PresenceChanges::All => presence.present(),
        }
    }

    /// Adds present users who came into a room, or into whose room this user came.
    fn newly_seen(&self, view: &SyncView, found: &mut BTreeSet<OwnedUserId>) -> Result<(), Error> {
        let presence = self.engine.users.presence();
        let new_rooms = view
            .joined
            .iter()
            .filter(|room| room.initial && !self.request.full_state);
        let new_rooms: Vec<_> = new_rooms.take(NEW_ROOMS_MAX).collect();
        if !new_rooms.is_empty() {
            for user in presence.present() {
                for room in &new_rooms {
                    if room.room.membership(&user)? == Membership::Join {
                        found.insert(user.clone());
                        break;
                    }
                }
            }
        }
        for room in view.joined.iter().filter(|room| !room.initial) {
            for event in room.timeline.events.iter().chain(&room.state) {
                let member = event
                    .pdu
                    .state_key()
                    .filter(|_| event.pdu.kind() == "m.room.member");
                let member = member.and_then(|id| OwnedUserId::try_from(id).ok());
                let Some(user) = member.filter(|user| user != self.request.user.id()) else {
                    continue;
                };
                if presence.get(&user).state != PresenceState::Offline
                    && room.room.membership(&user)? == Membership::Join
                {
                    found.insert(user);
                }
            }
        }
        Ok(())
    }
}
