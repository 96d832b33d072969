//! The current state, where it changes by more than the one event that is staged: the flat entries, the counts and the
//! cache follow the new root.

use hearth_events::Pdu;

use super::{MemberEvent, Staging, Stop};
use crate::{
    Error, Membership,
    event::Short,
    head::StateEntry,
    state_tree::{self, NodeId, Overlay},
};

/// When more of the state than this changes at once, remote members' changes are not told one by one.
const MEMBERS_NEWS_MAX: usize = 1_000;

impl Staging<'_> {
    /// Brings the flat state, the counts and the cache in line with the new root. Costs what differs.
    pub(super) fn change_state(&mut self, before: NodeId, staged: Option<(Short, &Pdu)>) -> Result<(), Stop> {
        let mut changes = Vec::new();
        {
            let store = self.room.nodes();
            let pending = Overlay {
                base: &store,
                new: &self.head.pending.nodes,
            };
            let base = Overlay {
                base: &pending,
                new: &self.nodes,
            };
            state_tree::diff(&base, before, self.record.root, &mut |_, old, new| {
                changes.push((old, new));
            })?;
        }
        let changed_at_once = changes.len();
        for (old, new) in changes {
            self.change_entry(old, new, staged)?;
        }
        // Of a room that is joined, the others' memberships are no news: they were there before.
        if changed_at_once > MEMBERS_NEWS_MAX {
            let rooms = &self.room.0.rooms;
            self.members.retain(|change| rooms.is_local(&change.user));
        }
        Ok(())
    }

    fn change_entry(
        &mut self,
        old: Option<Short>,
        new: Option<Short>,
        staged: Option<(Short, &Pdu)>,
    ) -> Result<(), Stop> {
        let read = |wanted: Short| -> Result<Pdu, Stop> {
            if let Some((short, pdu)) = staged
                && wanted == short
            {
                return Ok(pdu.clone());
            }
            if let Some(position) = self.head.pending.ids.values().find(|(_, id)| *id == wanted) {
                return Err(Stop::Wait(position.0));
            }
            let event = self.room.event(wanted)?.ok_or(Error::Damaged("state entry"))?;
            Ok(event.pdu.clone())
        };
        let (Some(some), _) = (new.or(old), ()) else {
            return Ok(());
        };
        let event = read(some)?;
        let kind = event.kind().to_owned();
        let state_key = event.state_key().unwrap_or_default().to_owned();
        let mut entry = new.map(|short| StateEntry {
            short,
            membership: Membership::None,
        });
        if kind == "m.room.member" {
            let key = (kind.clone(), state_key.clone());
            let before = self
                .entry(&key)?
                .map_or(Membership::None, |entry| entry.membership);
            let mut after = Membership::None;
            if let Some(entry) = &mut entry {
                after = Membership::of_content(event.content());
                entry.membership = after;
            }
            let member = MemberEvent {
                event_id: &event.event_id,
                sender: event.sender(),
                content: event.content(),
            };
            self.count_member(&state_key, before, after, &member);
            // `count_member` numbers the event that is about to be placed.
            if let Some(change) = self.members.last_mut() {
                change.n = self.record.last_n;
            }
        }
        self.patch.forget(&kind, &state_key);
        self.state.insert((kind, state_key), entry);
        Ok(())
    }
}
