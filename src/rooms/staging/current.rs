//! The current state of an operation: an event of ours puts its entry into it; where it changes by more than the one
//! event that is staged, the flat entries, the counts and the cache follow the new root.

use std::{collections::HashMap, sync::Arc};

use hearth_events::{MemberInfo, Pdu, Unsigned};
use ruma::{OwnedEventId, OwnedUserId, UserId};

use super::{MemberChange, Staging, Stop};
use crate::{
    Error, Event, Membership, NewEvent,
    event::Short,
    head::{EventRef, StateEntry},
    lay::{CHANGED_AT_ONCE_MAX, Layout},
    room::StateChange,
    state_tree::{self, NodeId, Overlay},
};

/// When more of the state than this changes at once, remote members' changes are not told one by one.
const MEMBERS_NEWS_MAX: usize = 1_000;

impl Staging<'_> {
    /// Puts a state event into the current state.
    pub(super) fn apply_state(
        &mut self,
        event: &NewEvent,
        unsigned: &Unsigned,
        short: Short,
    ) -> Result<(), Stop> {
        let Some(state_key) = &event.state_key else {
            return Ok(());
        };
        let key = (event.kind.clone(), state_key.clone());
        let before = self.entry(&key)?;
        let number = self.key_short(&key)?;
        let store = self.room.nodes();
        let base = Overlay {
            base: &store,
            new: &self.head.pending.nodes,
        };
        self.record.root =
            state_tree::apply(&base, self.record.root, &[(number, Some(short))], &mut self.nodes)?;
        let mut entry = StateEntry {
            short,
            membership: Membership::None,
        };
        if event.kind == "m.room.member" {
            let info = MemberInfo::parse(&event.content)?;
            entry.membership = Membership::from_word(info.membership.as_str());
            let before = before.map_or(Membership::None, |entry| entry.membership);
            self.count_member(
                state_key,
                before,
                entry.membership,
                &MemberEvent {
                    event_id: &unsigned.event_id,
                    sender: &event.sender,
                    content: &event.content,
                    n: self.record.last_n + 1,
                },
            );
        }
        self.patch.learn(
            self.room.0.rules,
            event,
            EventRef {
                short,
                id: unsigned.event_id.clone(),
            },
        )?;
        self.set_entry(key, Some(entry));
        Ok(())
    }

    /// The current state event that an event of ours would repeat, as [`Room::same_state`] says it. Its content is in
    /// canonical form.
    pub(crate) fn same_state(&self, event: &NewEvent) -> Result<Option<OwnedEventId>, Stop> {
        let Some(state_key) = &event.state_key else {
            return Ok(None);
        };
        let Some(entry) = self.entry(&(event.kind.clone(), state_key.clone()))? else {
            return Ok(None);
        };
        let sender = ("m.room.member".to_owned(), event.sender.to_string());
        let is_joined = self
            .entry(&sender)?
            .is_some_and(|entry| entry.membership == Membership::Join);
        if !is_joined {
            return Ok(None);
        }
        let current = self.readable(entry.short)?;
        let same = current.pdu.sender() == event.sender && *current.pdu.content() == *event.content;
        Ok(same.then(|| current.id().to_owned()))
    }

    /// An event of the room, which must be waited for where storage does not have it yet.
    fn readable(&self, short: Short) -> Result<Arc<Event>, Stop> {
        if let Some((position, _)) = self.head.pending.ids.values().find(|(_, id)| *id == short) {
            return Err(Stop::Wait(*position));
        }
        Ok(self.room.event(short)?.ok_or(Error::Damaged("state entry"))?)
    }

    /// Brings the flat state, the counts and the cache in line with the new root. Costs what differs.
    pub(super) fn change_state(&mut self, before: NodeId, staged: Option<(Short, &Pdu)>) -> Result<(), Stop> {
        let changes = self.changes(before, self.record.root)?;
        let changed_at_once = changes.len();
        let besides_laid = match changed_at_once > CHANGED_AT_ONCE_MAX && self.besides_laid.is_none() {
            true => Some(self.changes_besides_laid(&changes, staged)?),
            false => None,
        };
        for (old, new) in changes {
            self.change_entry(old, new, staged)?;
        }
        if let Some(changes) = besides_laid {
            let mut entries = HashMap::with_capacity(changes.len());
            for (old, new) in changes {
                if let Some((key, entry, _)) = self.entry_of(old, new, staged)? {
                    entries.insert(key, entry);
                }
            }
            self.besides_laid = Some(entries);
            self.record.flat = self.record.flat.other();
        }
        // Of a room that is joined, the others' memberships are no news: they were there before.
        if changed_at_once > MEMBERS_NEWS_MAX {
            let rooms = &self.room.0.rooms;
            self.members.retain(|change| rooms.is_local(&change.user));
        }
        Ok(())
    }

    /// In what two states differ, of which one may have nodes that are not stored yet.
    fn changes(&self, before: NodeId, after: NodeId) -> Result<Vec<StateChange>, Error> {
        let mut changes = Vec::new();
        let store = self.room.nodes();
        let pending = Overlay {
            base: &store,
            new: &self.head.pending.nodes,
        };
        let base = Overlay {
            base: &pending,
            new: &self.nodes,
        };
        state_tree::diff(&base, before, after, &mut |_, old, new| {
            changes.push((old, new));
        })?;
        Ok(changes)
    }

    /// In what the state differs from the one that was laid out. `all` is in what it differs from the current one.
    fn changes_besides_laid(
        &self,
        all: &[StateChange],
        staged: Option<(Short, &Pdu)>,
    ) -> Result<Vec<StateChange>, Stop> {
        let unstored = staged.map(|(short, _)| short);
        let laid = *self.room.0.laid.lock();
        if let Some(laid) = laid.filter(|laid| laid.flat != self.record.flat) {
            let mut changes = self.changes(laid.root, self.record.root)?;
            // The event that was not stored then has no row: it cannot go, and is not in the difference where it stays.
            changes.retain(|(old, new)| new.is_some() || *old != laid.unstored);
            let stays = all.iter().find(|(_, new)| new.is_some() && *new == unstored);
            changes.extend(stays);
            if changes.len() <= CHANGED_AT_ONCE_MAX {
                return Ok(changes);
            }
        }
        Err(Stop::LayOut(Box::new(Layout {
            root: self.record.root,
            nodes: self.nodes.clone(),
            unstored,
        })))
    }

    /// The key of an entry that changes, what it becomes, and the event: the one that comes, or the one that goes.
    fn entry_of(
        &self,
        old: Option<Short>,
        new: Option<Short>,
        staged: Option<(Short, &Pdu)>,
    ) -> Result<Option<Changed>, Stop> {
        let Some(some) = new.or(old) else {
            return Ok(None);
        };
        let pdu = match staged {
            Some((short, pdu)) if some == short => pdu.clone(),
            _ => self.readable(some)?.pdu.clone(),
        };
        let kind = pdu.kind().to_owned();
        let state_key = pdu.state_key().unwrap_or_default().to_owned();
        let membership = match kind.as_str() {
            "m.room.member" => Membership::of_content(pdu.content()),
            _ => Membership::None,
        };
        let entry = new.map(|short| StateEntry { short, membership });
        Ok(Some(((kind, state_key), entry, pdu)))
    }

    fn change_entry(
        &mut self,
        old: Option<Short>,
        new: Option<Short>,
        staged: Option<(Short, &Pdu)>,
    ) -> Result<(), Stop> {
        let Some((key, entry, event)) = self.entry_of(old, new, staged)? else {
            return Ok(());
        };
        if key.0 == "m.room.member" {
            let before = self
                .entry(&key)?
                .map_or(Membership::None, |entry| entry.membership);
            let after = entry.map_or(Membership::None, |entry| entry.membership);
            let member = MemberEvent {
                event_id: &event.event_id,
                sender: event.sender(),
                content: event.content(),
                n: self.record.last_n,
            };
            self.count_member(&key.1, before, after, &member);
        }
        self.patch.forget(&key.0, &key.1);
        self.set_entry(key, entry);
        Ok(())
    }

    fn set_entry(&mut self, key: (String, String), entry: Option<StateEntry>) {
        if let Some(besides_laid) = &mut self.besides_laid {
            besides_laid.insert(key.clone(), entry);
        }
        self.state.insert(key, entry);
    }

    fn count_member(
        &mut self,
        state_key: &str,
        before: Membership,
        after: Membership,
        event: &MemberEvent<'_>,
    ) {
        let Ok(user) = OwnedUserId::try_from(state_key) else {
            return;
        };
        for (membership, step) in [(before, -1i64), (after, 1)] {
            match membership {
                Membership::Join => {
                    self.record.joined = self.record.joined.saturating_add_signed(step as i32);
                    *self
                        .server_delta
                        .entry(user.server_name().to_string())
                        .or_default() += step;
                }
                Membership::Invite => {
                    self.record.invited = self.record.invited.saturating_add_signed(step as i32);
                }
                _ => {}
            }
        }
        #[derive(serde::Deserialize)]
        struct Direct {
            #[serde(default)]
            is_direct: bool,
        }
        let direct = serde_json::from_slice::<Direct>(event.content).is_ok_and(|found| found.is_direct);
        self.members.push(MemberChange {
            user,
            before,
            after,
            event_id: event.event_id.to_owned(),
            sender: event.sender.to_owned(),
            is_direct: direct,
            n: event.n,
        });
    }

    /// The current entry of a state key: staged, pending or stored.
    pub(super) fn entry(&self, key: &(String, String)) -> Result<Option<StateEntry>, Error> {
        if let Some(entry) = self.state.get(key) {
            return Ok(*entry);
        }
        if let Some((_, entry)) = self.head.pending.state.get(key) {
            return Ok(*entry);
        }
        self.room.state_entry(&key.0, &key.1)
    }

    /// The room's number for a state key, a new one where there is none yet.
    pub(super) fn key_short(&mut self, key: &(String, String)) -> Result<u32, Error> {
        if let Some(short) = self.new_keys.get(key) {
            return Ok(*short);
        }
        if let Some((_, short)) = self.head.pending.keys.get(key) {
            return Ok(*short);
        }
        if let Some(short) = self.room.state_key_short(&key.0, &key.1)? {
            return Ok(short);
        }
        if key.0 == "m.room.policy" {
            self.room.0.policy.come();
        }
        self.record.last_state_key += 1;
        self.new_keys.insert(key.clone(), self.record.last_state_key);
        Ok(self.record.last_state_key)
    }
}

/// A key of the state, its entry if it has one, and an event of it.
type Changed = ((String, String), Option<StateEntry>, Pdu);

/// What is read of a member event.
struct MemberEvent<'a> {
    event_id: &'a ruma::EventId,
    sender: &'a UserId,
    content: &'a [u8],
    /// Its sequence number.
    n: u64,
}
