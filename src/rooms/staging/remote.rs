//! Staging an event of another server: it was judged outside the lock, and here gets its place in the graph, in
//! the timeline and in the current state.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use hearth_events::{AuthInput, Pdu, StateView};
use hearth_storage::{Family, prefix_end};
use ruma::OwnedUserId;
use smallvec::SmallVec;

use super::{Body, MemberEvent, StagedEvent, Staging, Stop, count::Placed};
use crate::{
    Error, Event, Membership,
    annotations::Annotation,
    event::{Flags, Header, Origin, Place, Short, encode_event_id},
    head::{EventRef, StateEntry, Tip},
    keys,
    partial::is_lifted,
    relations::Relation,
    state_tree::{self, NewNodes, NodeId, Overlay},
};

/// More forward extremities than this are not kept: the oldest go. An event of a member or an admin merges them
/// long before (see `Room::merge_extremities`).
const TIPS_MAX: usize = 50;

/// When more of the state than this changes at once, remote members' changes are not told one by one.
const MEMBERS_NEWS_MAX: usize = 1_000;

/// Resolved states by the roots they were resolved from.
pub(crate) type Roots = HashMap<Vec<NodeId>, NodeId>;

/// An event that passed what can be decided without the current state.
#[derive(Clone)]
pub(crate) struct Judged {
    pub(crate) pdu: Pdu,
    /// Its short id, where it was an outlier.
    pub(crate) known: Option<Short>,
    pub(crate) prev: SmallVec<[Short; 2]>,
    pub(crate) auth: SmallVec<[Short; 4]>,
    pub(crate) state_before: NodeId,
    /// Nodes of that state, and of resolved ones, that are not stored yet.
    pub(crate) nodes: NewNodes,
    /// Rejected, not recommended by the policy server, forwarded, handed over.
    pub(crate) flags: Flags,
    /// Previous events that are not here: the timeline has a gap before this event.
    pub(crate) missing: Vec<ruma::OwnedEventId>,
    /// The event is known to come after everything that the room has: the room was left and is joined anew.
    pub(crate) replaces_tips: bool,
    pub(crate) origin: Option<Origin>,
    /// The local transaction that the event came by.
    pub(crate) txn: Option<[u8; 16]>,
}

/// An event without a place: part of an auth chain or of a state.
pub(crate) struct Outlier {
    pub(crate) pdu: Pdu,
    pub(crate) rejected: bool,
    pub(crate) redacted: bool,
}

impl Staging<'_> {
    /// Keeps events that have no place in the timeline. Those that came another way meanwhile stay as they are: an event
    /// has one short id.
    pub(crate) fn keep_outliers(&mut self, outliers: Vec<Outlier>) -> Result<(), Error> {
        for outlier in outliers {
            if self.short_of(&outlier.pdu.event_id)?.is_some() {
                continue;
            }
            if let Some(state_key) = outlier.pdu.state_key() {
                self.key_short(&(outlier.pdu.kind().to_owned(), state_key.to_owned()))?;
            }
            let mut auth = SmallVec::new();
            for id in outlier.pdu.auth_events() {
                auth.extend(self.short_of(id)?);
            }
            self.record.last_short += 1;
            let short = self.record.last_short;
            self.ids.insert(outlier.pdu.event_id.clone(), short);
            let mut flags = Flags(Flags::OUTLIER);
            if outlier.rejected {
                flags.0 |= Flags::REJECTED;
            }
            if outlier.redacted {
                flags.0 |= Flags::REDACTED;
            }
            let header = Header {
                flags,
                class: Default::default(),
                place: Place::default(),
                position: 0,
                state_before: NodeId::EMPTY,
                prev: SmallVec::new(),
                auth,
                thread: None,
                redacted_by: None,
                origin: None,
            };
            self.keep(outlier.pdu, short, header, false);
        }
        Ok(())
    }

    /// Makes the nodes of a state. Says whether there is anything to store.
    pub(crate) fn make_state(&mut self, entries: &[(String, String, Short)]) -> Result<(NodeId, bool), Stop> {
        let mut numbered = Vec::with_capacity(entries.len());
        for (kind, state_key, short) in entries {
            numbered.push((self.key_short(&(kind.clone(), state_key.clone()))?, *short));
        }
        let (root, nodes) = state_tree::build(numbered);
        self.nodes.absorb(nodes);
        Ok((root, !entries.is_empty()))
    }

    /// Gives an event of the past its place among what is older than the room's first events here. It changes
    /// neither the extremities nor the current state.
    pub(crate) fn place_history(&mut self, judged: &Judged, place: Place) -> Result<(), Stop> {
        let judged = &*self.known_now(judged)?;
        self.nodes.extend(&judged.nodes);
        self.state_after(judged)?;
        let short = match judged.known {
            Some(short) => short,
            None => {
                self.record.last_short += 1;
                self.ids
                    .insert(judged.pdu.event_id.clone(), self.record.last_short);
                self.record.last_short
            }
        };
        let rejected = judged.flags.has(Flags::REJECTED);
        let header = Header {
            flags: judged.flags,
            class: Default::default(),
            place: if rejected { Place::default() } else { place },
            position: 0,
            state_before: judged.state_before,
            prev: judged.prev.clone(),
            auth: judged.auth.clone(),
            thread: None,
            redacted_by: None,
            origin: None,
        };
        match rejected {
            true => {
                self.keep(judged.pdu.clone(), short, header, judged.known.is_some());
                Ok(())
            }
            false => self.link(judged, short, header),
        }
    }

    /// Makes the whole state the current one, with the events that were judged again (see `partial`), of which the first
    /// is the join. Those that are not rejected any more come into the timeline now.
    pub(crate) fn complete(&mut self, events: &[Event], tips: &[Tip], root: NodeId) -> Result<(), Stop> {
        let (lifted, judged): (Vec<&Event>, Vec<&Event>) = events.iter().partition(|event| is_lifted(event));
        let judged_count = judged.len();
        self.replaced.extend(judged.into_iter().cloned());
        self.record.tips = tips.iter().take(TIPS_MAX).cloned().collect();
        let before = std::mem::replace(&mut self.record.root, root);
        self.completes = events.first().map(|join| join.short);
        self.change_state(before, None)?;
        for event in lifted {
            self.lift(event)?;
        }
        // A redaction among them took an event as it is stored: what was judged again of it counts.
        let (judged, redacted) = self.replaced.split_at_mut(judged_count);
        for event in redacted {
            if let Some(again) = judged.iter().find(|again| again.short == event.short) {
                event.header.state_before = again.header.state_before;
                event.header.flags.0 |= again.header.flags.0 & Flags::REJECTED;
            }
        }
        Ok(())
    }

    /// Gives an event that was kept as rejected its place, as if it came now.
    fn lift(&mut self, event: &Event) -> Result<(), Stop> {
        let header = &event.header;
        let judged = Judged {
            pdu: event.pdu.clone(),
            known: Some(event.short),
            prev: header.prev.clone(),
            auth: header.auth.clone(),
            state_before: header.state_before,
            nodes: NewNodes::default(),
            flags: header.flags,
            missing: self.room.missing_before(&event.pdu)?,
            replaces_tips: false,
            origin: header.origin.clone(),
            txn: None,
        };
        self.record.last_n += 1;
        self.record.depth = self.record.depth.max(judged.pdu.depth());
        self.settle_place(&judged, event.short, header.clone())
    }

    /// Puts an event at the end of the timeline.
    fn settle_place(&mut self, judged: &Judged, short: Short, mut header: Header) -> Result<(), Stop> {
        let pdu = &judged.pdu;
        header.place = Place {
            anchor: self.record.last_n,
            offset: 0,
        };
        (header.class, header.thread) = self.count(&Placed {
            sender: pdu.sender(),
            kind: pdu.kind(),
            state_key: pdu.state_key(),
            content: pdu.content(),
            place: header.place,
            short,
        })?;
        self.link(judged, short, header)?;
        for id in &judged.missing {
            self.wait_for(id, short);
        }
        Ok(())
    }

    /// Events are missing before a place.
    pub(crate) fn open_gap(&mut self, place: Place, missing: &[ruma::OwnedEventId]) {
        if missing.is_empty() {
            return;
        }
        self.room.0.gaps.come();
        let row = keys::index(self.room.0.key, keys::INDEX_GAP, &[&keys::place_bytes(place)]);
        let ids: Vec<&str> = missing.iter().map(|id| id.as_str()).collect();
        self.rows
            .put(Family::RoomIndex, row, hearth_storage::record::encode(&ids));
    }

    /// The gap before a place is closed.
    pub(crate) fn close_gap(&mut self, place: Place) {
        let row = keys::index(self.room.0.key, keys::INDEX_GAP, &[&keys::place_bytes(place)]);
        self.rows.delete(Family::RoomIndex, row);
    }

    fn keep(&mut self, pdu: Pdu, short: Short, header: Header, known: bool) {
        self.events.push(StagedEvent {
            short,
            totals: self.record.totals,
            kind: pdu.kind().to_owned(),
            sender: pdu.sender().to_owned(),
            body: Body::Signed(pdu),
            header,
            known,
            relation: None,
            annotation: None,
        });
    }

    /// Gives a judged event its place. Asks to resolve where the current state is one of several extremities and
    /// `roots` does not have it.
    pub(crate) fn place(&mut self, judged: &Judged, roots: &Roots) -> Result<Flags, Stop> {
        let judged = &*self.known_now(judged)?;
        self.nodes.extend(&judged.nodes);
        let pdu = &judged.pdu;
        let mut flags = judged.flags;
        if !flags.has(Flags::REJECTED) && !judged.replaces_tips {
            self.gather_for(pdu.sender(), pdu.kind(), pdu.state_key(), pdu.content())?;
            let input = AuthInput::of_pdu(self.room.0.rules, pdu);
            let known = self.record.last_n > 0;
            if known
                && !self.room.is_partial()
                && hearth_events::authorize(self.room.0.rules, &input, self as &dyn StateView).is_err()
            {
                flags.0 |= Flags::SOFT_FAILED;
            }
        }
        let after = self.state_after(judged)?;
        let short = match judged.known {
            Some(short) => short,
            None => {
                self.record.last_short += 1;
                self.ids.insert(pdu.event_id.clone(), self.record.last_short);
                self.record.last_short
            }
        };
        let header = Header {
            flags,
            class: Default::default(),
            place: Place::default(),
            position: 0,
            state_before: judged.state_before,
            prev: judged.prev.clone(),
            auth: judged.auth.clone(),
            thread: None,
            redacted_by: None,
            origin: judged.origin.clone(),
        };
        if flags.has(Flags::REJECTED) || flags.has(Flags::SOFT_FAILED) {
            self.keep(pdu.clone(), short, header, judged.known.is_some());
            return Ok(flags);
        }
        let before_root = self.record.root;
        self.move_tips(judged, short, after, roots)?;
        self.record.last_n += 1;
        self.change_state(before_root, Some((short, pdu)))?;
        self.settle_place(judged, short, header)?;
        Ok(flags)
    }

    /// The event with its short id, where it was kept as part of a state or a chain while it was judged.
    fn known_now<'j>(&self, judged: &'j Judged) -> Result<Cow<'j, Judged>, Stop> {
        if judged.known.is_some() {
            return Ok(Cow::Borrowed(judged));
        }
        if let Some((position, _)) = self.head.pending.ids.get(&judged.pdu.event_id) {
            return Err(Stop::Wait(*position));
        }
        Ok(match self.room.short_of(&judged.pdu.event_id)? {
            None => Cow::Borrowed(judged),
            known => Cow::Owned(Judged {
                known,
                ..judged.clone()
            }),
        })
    }

    /// Makes the nodes of the state after an event, and of the one before it.
    pub(crate) fn make_state_after(&mut self, judged: &Judged) -> Result<(), Stop> {
        self.nodes.extend(&judged.nodes);
        self.state_after(judged).map(drop)
    }

    /// The root of the state after an event, with the nodes for it.
    fn state_after(&mut self, judged: &Judged) -> Result<NodeId, Stop> {
        let pdu = &judged.pdu;
        let Some(state_key) = pdu.state_key() else {
            return Ok(judged.state_before);
        };
        if judged.flags.has(Flags::REJECTED) {
            return Ok(judged.state_before);
        }
        let number = self.key_short(&(pdu.kind().to_owned(), state_key.to_owned()))?;
        let short = judged.known.unwrap_or(self.record.last_short + 1);
        let store = self.room.nodes();
        let base = Overlay {
            base: &store,
            new: &self.head.pending.nodes,
        };
        // `nodes` has what was made outside the lock for the state before the event.
        Ok(state_tree::apply(
            &base,
            judged.state_before,
            &[(number, Some(short))],
            &mut self.nodes,
        )?)
    }

    /// Whether an accepted event follows this one, which was missing when that came.
    fn is_followed(&self, id: &ruma::EventId) -> Result<bool, Stop> {
        for child in self.waiting_for(id)? {
            let child = self.room.event(child)?;
            if child.is_some_and(|child| child.pdu.prev_events().iter().any(|prev| prev == id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the event a forward extremity, unless it comes late and one stands behind it, and the state after all of them the current one.
    fn move_tips(&mut self, judged: &Judged, short: Short, after: NodeId, roots: &Roots) -> Result<(), Stop> {
        let pdu = &judged.pdu;
        let mut tips = self.record.tips.clone();
        match judged.replaces_tips {
            true => tips.clear(),
            false => tips.retain(|tip| !pdu.prev_events().contains(&tip.event.id)),
        }
        if tips.len() >= TIPS_MAX {
            tips.truncate(TIPS_MAX - 1);
        }
        if tips.is_empty() || !self.is_followed(&pdu.event_id)? {
            tips.insert(
                0,
                Tip {
                    event: EventRef {
                        short,
                        id: pdu.event_id.clone(),
                    },
                    depth: pdu.depth(),
                    root: after,
                },
            );
        }
        let mut distinct: Vec<NodeId> = tips.iter().map(|tip| tip.root).collect();
        distinct.sort_unstable_by_key(|root| root.0);
        distinct.dedup();
        self.record.root = match distinct.as_slice() {
            [one] => *one,
            _ => match roots.get(&distinct) {
                Some(root) => *root,
                None => return Err(Stop::Resolve(distinct)),
            },
        };
        self.record.depth = self.record.depth.max(pdu.depth());
        self.record.tips = tips;
        Ok(())
    }

    /// Brings the flat state, the counts and the cache in line with the new root. Costs what differs.
    fn change_state(&mut self, before: NodeId, staged: Option<(Short, &Pdu)>) -> Result<(), Stop> {
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

    /// Relations and redactions, of the event and of those that waited for it; then it is staged.
    fn link(&mut self, judged: &Judged, short: Short, mut header: Header) -> Result<(), Stop> {
        let pdu = judged.pdu.clone();
        let key = self.room.0.key;
        let mut relation = None;
        if let Some(found) = Relation::of_content(pdu.content())
            && !(pdu.state_key().is_some() && found.rel_type == "m.replace")
        {
            match self.placed_short(&found.event_id)? {
                Some(parent) => relation = Some((parent, found)),
                None => self.wait_for(&found.event_id, short),
            }
        }
        if pdu.kind() == "m.room.redaction"
            && let Some(target) = pdu.redacts()
        {
            match self.placed_short(target)? {
                Some(found) => self.redact_by(found, pdu.sender().to_owned(), short)?,
                None => {
                    // Once more when it gets a place: it may come from elsewhere as it was then.
                    self.wait_for(target, short);
                    if let Some(outlier) = self.room.short_of(target)? {
                        self.redact_by(outlier, pdu.sender().to_owned(), short)?;
                    }
                }
            }
        }
        let mut event = Event {
            short,
            header: header.clone(),
            pdu: pdu.clone(),
        };
        if let Some(known) = judged.known
            && let Some(known) = self.room.event(known)?
            && let Some(by) = known.header.redacted_by
        {
            // It was redacted while it had no place; it comes as it was before.
            event.pdu = hearth_events::redact(self.room.0.rules, &event.pdu)?;
            header.flags.0 |= Flags::REDACTED;
            header.redacted_by = Some(by);
        }
        for child in self.waiting_for(&pdu.event_id)? {
            let Some(child) = self.room.event(child)? else {
                continue;
            };
            let row = keys::index(
                key,
                keys::INDEX_WAITING,
                &[&encode_event_id(&pdu.event_id), &child.short.to_be_bytes()],
            );
            self.rows.delete(Family::RoomIndex, row);
            if child.pdu.redacts() == Some(&*pdu.event_id) {
                let own = child.pdu.sender().server_name() == pdu.sender().server_name();
                if own || self.may_redact(child.pdu.sender()) {
                    event.pdu = hearth_events::redact(self.room.0.rules, &event.pdu)?;
                    self.uncount(&header);
                    header.flags.0 |= Flags::REDACTED;
                    header.redacted_by = Some(child.short);
                }
            } else if let Some(found) = Relation::of_content(child.pdu.content())
                && found.event_id == pdu.event_id
            {
                self.room.0.relations.come();
                self.head.hints.related = self.head.hints.related.max(short);
                let row = keys::relation(key, short, child.header.place, child.short);
                self.rows.put(Family::RoomIndex, row, found.row(child.pdu.kind()));
            }
        }
        let annotation = relation
            .as_ref()
            .and_then(|(parent, relation)| Annotation::of(*parent, relation, pdu.sender(), pdu.kind()));
        self.open_gap(header.place, &judged.missing);
        self.events.push(StagedEvent {
            short,
            totals: self.record.totals,
            kind: pdu.kind().to_owned(),
            sender: pdu.sender().to_owned(),
            body: Body::Signed(event.pdu),
            header,
            known: judged.known.is_some(),
            relation,
            annotation,
        });
        Ok(())
    }

    /// The short id of an event that has a place; none where it is missing or an outlier.
    fn placed_short(&self, id: &ruma::EventId) -> Result<Option<Short>, Stop> {
        if let Some((_, short)) = self.head.pending.ids.get(id) {
            return Ok(Some(*short));
        }
        let Some(event) = self.room.event_by_id(id)? else {
            return Ok(None);
        };
        Ok((event.header.place.anchor != 0).then_some(event.short))
    }

    pub(super) fn wait_for(&mut self, id: &ruma::EventId, child: Short) {
        self.room.0.awaited.come();
        let row = keys::index(
            self.room.0.key,
            keys::INDEX_WAITING,
            &[&encode_event_id(id), &child.to_be_bytes()],
        );
        self.rows.put(Family::RoomIndex, row, Vec::new());
    }

    fn waiting_for(&self, id: &ruma::EventId) -> Result<Vec<Short>, Stop> {
        let all = keys::index(self.room.0.key, keys::INDEX_WAITING, &[]);
        let mut shorts = Vec::new();
        if !self.room.0.awaited.be(|| self.room.has_rows(&all))? {
            return Ok(shorts);
        }
        let start = keys::index(self.room.0.key, keys::INDEX_WAITING, &[&encode_event_id(id)]);
        self.room.reader().scan(
            Family::RoomIndex,
            &start,
            &prefix_end(&start),
            false,
            &mut |key, _| {
                shorts.extend(keys::read_u32(&key[start.len()..], "waiting event").ok());
                true
            },
        )?;
        Ok(shorts)
    }

    /// Applies a redaction that was accepted, if its sender may redact the event (room versions, "Handling
    /// redactions").
    fn redact_by(&mut self, target: Short, sender: OwnedUserId, by: Short) -> Result<(), Stop> {
        if let Some((position, _)) = self.head.pending.ids.values().find(|(_, id)| *id == target) {
            return Err(Stop::Wait(*position));
        }
        let Some(event) = self.room.event(target)? else {
            return Ok(());
        };
        let own = event.pdu.sender().server_name() == sender.server_name();
        if event.is_redacted() || !(own || self.may_redact(&sender)) {
            return Ok(());
        }
        self.apply_redaction(Arc::clone(&event), by)
    }
}
