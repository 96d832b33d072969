//! Staging an event of another server: it was judged outside the lock, and here gets its place in the graph and in the
//! timeline.

use std::{borrow::Cow, collections::HashMap};

use hearth_events::{AuthInput, Pdu, StateView};
use smallvec::SmallVec;

use super::{Staging, Stop, count::Placed};
use crate::{
    Event,
    event::{Flags, Header, Origin, Place, Short},
    head::{EventRef, Tip},
    judge_again::is_lifted,
    relations::Relation,
    state_tree::{self, NewNodes, NodeId, Overlay},
};

/// More forward extremities than this are not kept: the oldest go. An event of a member or an admin merges them
/// long before (see `Room::merge_extremities`).
const TIPS_MAX: usize = 50;

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

impl Staging<'_> {
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
        let short = self.short_for(judged);
        let header = Header {
            origin: judged.origin.clone(),
            ..unplaced(judged, flags)
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

    /// Gives an event of the past its place among what is older than the room's first events here. It changes
    /// neither the extremities nor the current state.
    pub(crate) fn place_history(&mut self, judged: &Judged, place: Place) -> Result<(), Stop> {
        let judged = &*self.known_now(judged)?;
        self.nodes.extend(&judged.nodes);
        self.state_after(judged)?;
        let short = self.short_for(judged);
        let rejected = judged.flags.has(Flags::REJECTED);
        let header = Header {
            place: if rejected { Place::default() } else { place },
            ..unplaced(judged, judged.flags)
        };
        match rejected {
            true => {
                self.keep(judged.pdu.clone(), short, header, judged.known.is_some());
                Ok(())
            }
            false => self.link(judged, short, header),
        }
    }

    /// Makes a state the current one with which events were judged again (see `judge_again`). Those that stand now and did
    /// not before come into the timeline. If the room becomes whole with it, `completes` is the join since which it is.
    pub(crate) fn complete(
        &mut self,
        events: &[Event],
        tips: &[Tip],
        root: NodeId,
        completes: Option<Short>,
    ) -> Result<(), Stop> {
        let (lifted, judged): (Vec<&Event>, Vec<&Event>) = events.iter().partition(|event| is_lifted(event));
        let judged_count = judged.len();
        self.replaced.extend(judged.into_iter().cloned());
        self.record.tips = tips.iter().take(TIPS_MAX).cloned().collect();
        let before = std::mem::replace(&mut self.record.root, root);
        self.completes = completes;
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
        let relation = Relation::of_content(pdu.content());
        (header.class, header.thread) = self.count(&Placed {
            sender: pdu.sender(),
            kind: pdu.kind(),
            state_key: pdu.state_key(),
            content: pdu.content(),
            relation: relation.as_ref(),
            place: header.place,
            short,
        })?;
        self.link(judged, short, header)?;
        for id in &judged.missing {
            self.wait_for(id, short);
        }
        Ok(())
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

    /// The short id that an event has, or gets now.
    fn short_for(&mut self, judged: &Judged) -> Short {
        if let Some(short) = judged.known {
            return short;
        }
        self.record.last_short += 1;
        let id = judged.pdu.event_id.clone();
        self.ids.insert(id, self.record.last_short);
        self.record.last_short
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
}

/// What is known of an event before it has a place.
fn unplaced(judged: &Judged, flags: Flags) -> Header {
    Header {
        flags,
        class: Default::default(),
        place: Place::default(),
        position: 0,
        state_before: judged.state_before,
        prev: judged.prev.clone(),
        auth: judged.auth.clone(),
        thread: None,
        redacted_by: None,
        origin: None,
    }
}
