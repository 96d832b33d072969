//! Judging again what was judged with a state that was not whole: most members were left out of it (`partial.rs`), or the
//! keys of some servers could not be had (`lacking.rs`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
};

use ruma::{OwnedEventId, OwnedServerName};

use crate::{
    Error, Event, Flags, Room,
    event::Short,
    head::{EventRef, Tip},
    lay::Laid,
    staging::{Staged, Staging, Stop},
    state_tree::{NewNodes, NodeId, Overlay, apply},
};

/// How many events are looked at to find what the room builds on when the state is whole.
const TIPS_SEARCHED_MAX: usize = 10_000;

/// How often events are judged again at the most: each time settles what the one before changed.
const PASSES_MAX: usize = 3;

/// So many events are read at once.
const READ_AT_ONCE: usize = 256;

/// What is known now of the states before some events.
pub(crate) struct StatesBefore {
    /// The events, with the roots of the states before them.
    pub(crate) roots: Vec<(OwnedEventId, NodeId)>,
    /// The join since which the room is whole with them, where they make it so.
    pub(crate) completes: Option<OwnedEventId>,
    /// Servers of whose members the state did not know.
    pub(crate) servers: BTreeSet<OwnedServerName>,
}

impl Room {
    /// Judges again the events since the first of those before which another state is known now.
    pub(crate) async fn judge_again(&self, states: &StatesBefore) -> Result<(), Error> {
        // A resolution reads from storage what is rejected: where that has changed, states are resolved anew.
        for _ in 0..PASSES_MAX {
            if !self.judge_once_more(states).await? {
                break;
            }
        }
        Ok(())
    }

    /// One pass; says whether states were resolved with verdicts that do not hold any more.
    async fn judge_once_more(&self, states: &StatesBefore) -> Result<bool, Error> {
        self.settle().await?;
        let mut roots: BTreeMap<Short, NodeId> = BTreeMap::new();
        for (id, root) in &states.roots {
            let event = self.placed(id)?.ok_or(Error::Damaged("event to judge again"))?;
            roots.insert(event.short, *root);
        }
        let Some(first) = roots.keys().next().copied() else {
            return Ok(false);
        };
        let first = self.event(first)?.ok_or(Error::Damaged("event to judge again"))?;
        let mut again = Again::default();
        if let Some(join) = &states.completes {
            let join = self.placed(join)?.ok_or(Error::Damaged("join"))?;
            again.completes = Some(join.short);
        }
        let mut next = first.short;
        let mut laid = None;
        loop {
            // All of this is durable, and can be read, when the room has settled.
            let (tips, last_short, last_n) = {
                let head = self.0.head.lock();
                let tips = head.record.tips.iter().map(|tip| tip.event.short);
                (
                    tips.collect::<Vec<Short>>(),
                    head.record.last_short,
                    head.record.last_n,
                )
            };
            self.settle().await?;
            self.take_redactions(&mut again)?;
            self.judge_stretch(next..=last_short, (&first, &roots), &mut again)
                .await?;
            next = last_short + 1;
            self.lift_soft_failed(&states.servers, &tips, &mut again).await?;
            let done;
            (again, done) = self.try_complete(again, (&tips, last_n), &mut laid).await?;
            if done {
                return Ok(again.verdicts_changed && self.has_forks(&again));
            }
            // Something was sent meanwhile. What was judged stays so: else a room in which much is said would never get there.
        }
    }

    /// Judges events, rejected and soft-failed ones too: what was missing may allow them.
    async fn judge_stretch(
        &self,
        shorts: RangeInclusive<Short>,
        (first, roots): (&Event, &BTreeMap<Short, NodeId>),
        again: &mut Again,
    ) -> Result<(), Error> {
        let shorts: Vec<Short> = shorts.collect();
        for some in shorts.chunks(READ_AT_ONCE) {
            for event in self.events(some)? {
                self.judge_in_order(event, (first, roots), again).await?;
            }
            // Most are members who came with the state: there may be a hundred thousand.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Judges an event whose turn has come by its number, before it those that it follows or cites. They mostly have smaller
    /// numbers and are judged; but not where it was known from a state before it got its place.
    async fn judge_in_order(
        &self,
        event: Arc<Event>,
        (first, roots): (&Event, &BTreeMap<Short, NodeId>),
        again: &mut Again,
    ) -> Result<(), Error> {
        let turn = event.short;
        let mut begun: HashSet<Short> = HashSet::new();
        let mut ahead = vec![event];
        while let Some(event) = ahead.last().cloned() {
            if again.numbers.contains_key(&event.short) || !is_judged_again(&event, first) {
                ahead.pop();
                continue;
            }
            let before = event.header.prev.iter().chain(&event.header.auth);
            let before: Vec<Short> = before.copied().filter(|short| *short > turn).collect();
            if begun.insert(event.short) && !before.is_empty() {
                let before = self.events(&before)?;
                ahead.extend(before.into_iter().filter(|event| !begun.contains(&event.short)));
                continue;
            }
            ahead.pop();
            let before = match roots.get(&event.short) {
                Some(root) => *root,
                None => self.state_before_again(&event, again).await?,
            };
            self.judge_one_again(&event, before, again).await?;
        }
        Ok(())
    }

    /// Takes up what was redacted since it was judged: what is stored of it is written with the verdicts.
    fn take_redactions(&self, again: &mut Again) -> Result<(), Error> {
        const JUDGED: u16 = Flags::REJECTED | Flags::SOFT_FAILED;
        for event in &mut again.events {
            let stored = self
                .event(event.short)?
                .ok_or(Error::Damaged("event to judge again"))?;
            if stored.header.redacted_by == event.header.redacted_by {
                continue;
            }
            let mut new = (*stored).clone();
            new.header.state_before = event.header.state_before;
            new.header.flags.0 = (stored.header.flags.0 & !JUDGED) | (event.header.flags.0 & JUDGED);
            *event = new;
        }
        Ok(())
    }

    /// Whether states were resolved to get at those of the events, or at the room's.
    fn has_forks(&self, again: &Again) -> bool {
        let merges = again.events.iter().any(|event| event.pdu.prev_events().len() > 1);
        merges || self.0.head.lock().record.tips.len() > 1
    }

    async fn state_before_again(&self, event: &Event, again: &mut Again) -> Result<NodeId, Error> {
        let mut roots: Vec<NodeId> = Vec::new();
        for prev in &event.header.prev {
            let root = match again.after.get(prev) {
                Some(root) => *root,
                None => match self.event(*prev)? {
                    Some(prev) => self.state_after_into(&prev, &mut again.nodes)?,
                    None => continue,
                },
            };
            roots.push(root);
        }
        // Events before it that are not here: what was fetched for them stays.
        if roots.is_empty() || event.header.prev.len() < event.pdu.prev_events().len() {
            roots.push(event.header.state_before);
        }
        self.state_of_roots(roots, &mut again.nodes).await
    }

    async fn judge_one_again(
        &self,
        event: &Arc<Event>,
        before: NodeId,
        again: &mut Again,
    ) -> Result<(), Error> {
        let mut new = (**event).clone();
        new.header.state_before = before;
        new.header.flags.0 &= !Flags::REJECTED;
        let verdict = match self.judge_by_auth_events_as(&event.pdu, &|auth| again.is_rejected(auth))? {
            Ok(()) => self.judge_by_state(&event.pdu, before, &again.nodes)?,
            denied => denied,
        };
        let was_rejected = event.header.flags.has(Flags::REJECTED);
        match verdict {
            Ok(()) if was_rejected => {
                tracing::info!(event = %event.id(), room = %self.id(), "an event was rejected wrongly");
            }
            Ok(()) => {}
            Err(denied) => {
                if !was_rejected {
                    tracing::info!(event = %event.id(), room = %self.id(), %denied, "an event was accepted wrongly");
                }
                new.header.flags.0 |= Flags::REJECTED;
            }
        }
        again.verdicts_changed |= was_rejected != new.header.flags.has(Flags::REJECTED);
        again.numbers.insert(new.short, again.events.len());
        let after = match new.header.flags.has(Flags::REJECTED) {
            true => before,
            false => self.state_after_again(&new, again).await?,
        };
        again.after.insert(new.short, after);
        again.events.push(new);
        Ok(())
    }

    async fn state_after_again(&self, event: &Event, again: &mut Again) -> Result<NodeId, Error> {
        let before = event.header.state_before;
        let Some(state_key) = event.pdu.state_key() else {
            return Ok(before);
        };
        let kind = event.pdu.kind();
        let mut key = self.state_key_short(kind, state_key)?;
        if key.is_none() {
            // It was rejected, and nothing else ever had this key: it has no number yet.
            self.make_state(&[(kind.to_owned(), state_key.to_owned(), event.short)])
                .await?;
            key = self.state_key_short(kind, state_key)?;
        }
        let key = key.ok_or(Error::Damaged("state key"))?;
        let store = self.nodes();
        let store = Overlay {
            base: &store,
            new: &again.nodes,
        };
        let mut made = NewNodes::default();
        let after = apply(&store, before, &[(key, Some(event.short))], &mut made)?;
        again.nodes.absorb(made);
        Ok(after)
    }

    /// Lifts events that soft-failed because the current state did not know their senders, who are of `servers`, where it
    /// allows them now.
    async fn lift_soft_failed(
        &self,
        servers: &BTreeSet<OwnedServerName>,
        tips: &[Short],
        again: &mut Again,
    ) -> Result<(), Error> {
        let is_it = |event: &Event| {
            event.header.flags.has(Flags::SOFT_FAILED)
                && !event.header.flags.has(Flags::REJECTED)
                && servers.contains(event.pdu.sender().server_name())
        };
        let failed: Vec<usize> = (0..again.events.len())
            .filter(|at| is_it(&again.events[*at]))
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        self.store_nodes(std::mem::take(&mut again.nodes)).await?;
        let (_, root) = self.heads_again(again, tips).await?;
        for at in failed {
            let pdu = again.events[at].pdu.clone();
            if self.judge_by_state(&pdu, root, &again.nodes)?.is_ok() && self.checked_by_policy(pdu).await?.1
            {
                let event = &mut again.events[at];
                tracing::info!(event = %event.id(), room = %self.id(), "an event soft-failed wrongly");
                event.header.flags.0 &= !Flags::SOFT_FAILED;
                again.verdicts_changed = true;
            }
        }
        Ok(())
    }

    /// What the forward extremities are now, and the root of the current state. The nodes of the states are stored.
    async fn heads_again(&self, again: &Again, tips: &[Short]) -> Result<(Vec<Tip>, NodeId), Error> {
        let mut made = NewNodes::default();
        let mut new_tips = Vec::new();
        for tip in self.tips_again(again, tips)? {
            let root = match again.after.get(&tip.short) {
                Some(root) => *root,
                // It stands before the first, and its state was always whole.
                None => self.state_after_into(&tip, &mut made)?,
            };
            new_tips.push(Tip {
                event: EventRef {
                    short: tip.short,
                    id: tip.id().to_owned(),
                },
                depth: tip.pdu.depth(),
                root,
            });
        }
        let roots = new_tips.iter().map(|tip| tip.root).collect();
        let root = self.state_of_roots(roots, &mut made).await?;
        self.store_nodes(made).await?;
        Ok((new_tips, root))
    }

    /// Makes the whole state the room's. False where the room has moved on meanwhile; what was laid out may be of use then.
    async fn try_complete<'a>(
        &'a self,
        mut again: Again,
        (tips, last_n): (&[Short], u64),
        laid: &mut Option<Laid<'a>>,
    ) -> Result<(Again, bool), Error> {
        self.store_nodes(std::mem::take(&mut again.nodes)).await?;
        let (new_tips, root) = self.heads_again(&again, tips).await?;
        let (again, new_tips) = (Arc::new(again), Arc::new(new_tips));
        loop {
            let (room, judged, tips, new_tips) = (
                self.clone(),
                Arc::clone(&again),
                tips.to_vec(),
                Arc::clone(&new_tips),
            );
            // All members of the room at once: more than a thread of requests is for.
            let section = move || -> Result<Option<crate::input::Submitted>, Stop> {
                let staged = room.stage_complete(&judged, (&tips, &new_tips), last_n, root)?;
                Ok(staged.map(|staged| room.submit(staged)))
            };
            let submitted = match self.0.rooms.pool.run(section).await {
                Ok(Some(submitted)) => submitted,
                Ok(None) => return Ok((Arc::unwrap_or_clone(again), false)),
                Err(Stop::Wait(position)) => {
                    self.wait_durable(position).await?;
                    continue;
                }
                Err(Stop::LayOut(layout)) => {
                    drop(laid.take());
                    *laid = Some(self.lay_out(*layout).await?);
                    continue;
                }
                Err(Stop::Refuse(error)) => return Err(error),
                Err(Stop::Resolve(_)) => return Err(Error::Damaged("forward extremities")),
            };
            let position = self.stored(submitted).await?;
            if let Some(laid) = laid.take() {
                laid.settle().await?;
            }
            // Who waits for it in `/sync` looks again.
            let change = crate::Change {
                timeline: true,
                ..crate::Change::default()
            };
            self.0.rooms.notify(self, &change, position, &[]);
            return Ok((Arc::unwrap_or_clone(again), true));
        }
    }

    /// The forward extremities as they are when the events since the join were judged again: not those that are
    /// rejected now, but what they followed; and those that are not rejected any more, where nothing follows them.
    fn tips_again(&self, again: &Again, tips: &[Short]) -> Result<Vec<Arc<Event>>, Error> {
        let mut found = Vec::new();
        let mut followed: HashSet<Short> = HashSet::new();
        let mut wanted: VecDeque<Short> = tips.iter().copied().collect();
        if again.verdicts_changed {
            for event in again.events.iter().filter(|event| stands(event)) {
                followed.extend(&event.header.prev);
            }
            // Not those from before this server left and came back: what it came back with follows all of them.
            let since = again.completes.unwrap_or_default();
            let lifted = again
                .events
                .iter()
                .filter(|event| event.short >= since && is_lifted(event));
            wanted.extend(lifted.map(|event| event.short));
        }
        let mut seen: HashSet<Short> = HashSet::new();
        while let Some(short) = wanted.pop_front()
            && seen.len() < TIPS_SEARCHED_MAX
        {
            if followed.contains(&short) || !seen.insert(short) {
                continue;
            }
            let event = match again.event(short) {
                Some(event) => Arc::new(event.clone()),
                None => self.event(short)?.ok_or(Error::Damaged("forward extremity"))?,
            };
            match again.verdicts_changed && !stands(&event) {
                true => wanted.extend(&event.header.prev),
                false => found.push(event),
            }
        }
        if found.is_empty() {
            // Nothing since the join stands, and what was before it is not here.
            return self.events(tips);
        }
        Ok(found)
    }

    fn stage_complete(
        &self,
        again: &Again,
        (tips, new_tips): (&[Short], &[Tip]),
        last_n: u64,
        root: NodeId,
    ) -> Result<Option<Box<Staged>>, Stop> {
        let mut head = self.0.head.lock();
        head.prune(self.0.rooms.log.published(self.0.shard));
        let now: Vec<Short> = head.record.tips.iter().map(|tip| tip.event.short).collect();
        if now != tips || head.record.last_n != last_n {
            return Ok(None);
        }
        let mut staging = Staging::new(self, head);
        if let Some(barrier) = staging.barrier() {
            return Err(Stop::Wait(barrier));
        }
        staging.complete(&again.events, new_tips, root, again.completes)?;
        Ok(Some(Box::new(staging.seal(None)?)))
    }
}

/// What comes of judging again.
#[derive(Clone, Default)]
struct Again {
    /// The join since which the room becomes whole, if it does.
    completes: Option<Short>,
    events: Vec<Event>,
    /// Where each of them stands in the list.
    numbers: HashMap<Short, usize>,
    after: HashMap<Short, NodeId>,
    nodes: NewNodes,
    /// Whether any is rejected that was not, or the other way round.
    verdicts_changed: bool,
}

impl Again {
    fn event(&self, short: Short) -> Option<&Event> {
        self.numbers.get(&short).and_then(|at| self.events.get(*at))
    }

    fn is_rejected(&self, event: &Event) -> bool {
        let event = self.event(event.short).unwrap_or(event);
        event.header.flags.has(Flags::REJECTED)
    }
}

/// Whether an event is judged again: one since the first, that has a place or was kept without one, but no history.
fn is_judged_again(event: &Event, first: &Event) -> bool {
    let place = event.header.place;
    let is_old = place.anchor != 0 && place < first.header.place;
    !event.header.flags.has(Flags::OUTLIER) && place.offset == 0 && !is_old
}

/// Whether an event is part of the room.
fn stands(event: &Event) -> bool {
    let flags = event.header.flags;
    !flags.has(Flags::REJECTED) && !flags.has(Flags::SOFT_FAILED) && !flags.has(Flags::OUTLIER)
}

/// Whether an event was rejected or soft-failed and is not any more: it has no place yet.
pub(crate) fn is_lifted(event: &Event) -> bool {
    stands(event) && event.header.place.anchor == 0
}
