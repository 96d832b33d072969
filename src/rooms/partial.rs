//! Rooms that were joined with most of their members left out (MSC3706, MSC3902): the user is in the room after one
//! round trip, and the state fills in behind.
//!
//! While the state is partial, events are judged by their auth events alone. When the whole state is here, the events
//! since the join are judged again with it. What waits for that is in the room's own records, so that it goes on
//! after a restart.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use hearth_core::tasks;
use hearth_events::Pdu;
use hearth_storage::{Family, record};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Event, Flags, Membership, Room, Rooms,
    event::Short,
    head::{EventRef, Tip},
    keys,
    lacking::Lacking,
    staging::{Staged, Staging, Stop},
    state_tree::{NewNodes, NodeId},
};

/// The pause after a failed attempt to get the whole state; it doubles up to the second figure.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// How many events are looked at to find what the room builds on when the state is whole.
const TIPS_SEARCHED_MAX: usize = 10_000;

/// How often the events since a join are judged again at the most: each time settles what the one before changed.
const PASSES_MAX: usize = 3;

/// How many rows are looked at between two chances for others to run, when rooms are looked for at the start.
const SCAN_ROWS: usize = 10_000;

/// What is known of the rest of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartialState {
    /// The join before which the state is not whole.
    pub(crate) join: OwnedEventId,
    /// Who let the user in.
    pub(crate) resident: OwnedServerName,
    /// The servers in the room.
    pub(crate) servers: Vec<OwnedServerName>,
}

impl Room {
    /// Whether most members are not known yet.
    pub fn is_partial(&self) -> bool {
        self.0.partial.borrow().is_some()
    }

    /// Notes what is known of the rest of the state, or that it is whole.
    pub(crate) fn set_partial(&self, partial: Option<PartialState>) {
        let rooms = &self.0.rooms.partial;
        match &partial {
            Some(_) => drop(rooms.insert(self.id().to_owned())),
            None => drop(rooms.remove(self.id())),
        }
        self.0.partial.send_replace(partial.map(Arc::new));
    }

    /// Returns when the state is whole, at once where it is.
    pub async fn wait_full(&self) {
        let mut partial = self.0.partial.subscribe();
        // The sender lives as long as the room.
        drop(partial.wait_for(Option::is_none).await);
    }

    /// The position of the batch that made the state whole; 0 where it always was.
    pub fn full_since(&self) -> hearth_storage::Position {
        self.0.full_since.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Servers in the room that its partial state does not show.
    pub(crate) fn partial_servers(&self) -> Vec<OwnedServerName> {
        let partial = self.0.partial.borrow();
        partial
            .as_ref()
            .map(|partial| partial.servers.clone())
            .unwrap_or_default()
    }

    /// Fetches the rest of the state in the background, until it is here or nobody of this server is in the room.
    pub(crate) fn start_resync(&self) {
        let room = self.clone();
        tasks::spawn("partial room state", async move {
            let mut pause = RETRY_FIRST;
            while room.is_partial() && room.is_resident() {
                match room.complete_state().await {
                    Ok(()) => return,
                    Err(Error::Storage(hearth_storage::Error::Stopped)) => return,
                    Err(error) => {
                        tracing::info!(%error, room = %room.id(), ?pause, "the whole state is not here yet")
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        });
    }

    async fn complete_state(&self) -> Result<(), Error> {
        let Some(partial) = self.0.partial.borrow().clone() else {
            return Ok(());
        };
        let join = self.placed(&partial.join)?.ok_or(Error::Damaged("join"))?;
        let mut failure = None;
        let mut root = None;
        let others = partial
            .servers
            .iter()
            .filter(|server| **server != partial.resident);
        self.take_missing_keys();
        for server in std::iter::once(&partial.resident).chain(others).take(10) {
            if *server == self.0.rooms.server_name {
                continue;
            }
            match self.whole_state_before(server, &join.pdu).await {
                Ok(found) => {
                    root = Some(found);
                    break;
                }
                Err(error) => failure = Some(error),
            }
        }
        let Some(root) = root else {
            return Err(failure.unwrap_or_else(|| Error::NotFound("nobody knows the state".to_owned())));
        };
        let _turn = self.0.receiving.lock().await;
        let missing = self.take_missing_keys();
        if !missing.is_empty() {
            let lacking = Lacking::new(partial.join.clone(), partial.resident.clone(), missing);
            self.set_lacking(Some(lacking)).await?;
        }
        self.judge_again(&partial.join, root).await?;
        if self.0.lacking.lock().is_some() {
            self.start_filling();
        }
        Ok(())
    }

    /// The state before the join, as a server has it: it need not know the join itself yet.
    async fn whole_state_before(&self, server: &ruma::ServerName, join: &Pdu) -> Result<NodeId, Error> {
        let mut roots = Vec::new();
        for prev in join.prev_events() {
            roots.push(self.state_after_missing(server, prev).await?);
        }
        if roots.is_empty() {
            return Err(Error::BadEvent("the join follows no event".to_owned()));
        }
        let mut made = NewNodes::default();
        let root = self.state_of_roots(roots, &mut made).await?;
        self.store_nodes(made).await?;
        Ok(root)
    }

    /// Judges the events since the join again, with the whole state before it.
    pub(crate) async fn judge_again(&self, join: &OwnedEventId, root: NodeId) -> Result<(), Error> {
        // A resolution reads from storage what is rejected: where that has changed, states are resolved anew.
        for _ in 0..PASSES_MAX {
            if !self.judge_once_more(join, root).await? {
                break;
            }
        }
        Ok(())
    }

    /// One pass; says whether states were resolved with verdicts that do not hold any more.
    async fn judge_once_more(&self, join: &OwnedEventId, root: NodeId) -> Result<bool, Error> {
        loop {
            self.settle().await?;
            let join = self.placed(join)?.ok_or(Error::Damaged("join"))?;
            let mut again = Again::default();
            again.after.insert(join.short, root);
            let (last_short, last_n) = {
                let head = self.0.head.lock();
                (head.record.last_short, head.record.last_n)
            };
            // In the order of their numbers, rejected and soft-failed ones too: what was missing may allow them.
            for short in join.short..=last_short {
                let Some(event) = self.event(short)? else { continue };
                let outlier = event.header.flags.has(Flags::OUTLIER);
                let history = event.header.place.offset != 0;
                if outlier
                    || history
                    || (event.header.place.anchor != 0 && event.header.place < join.header.place)
                {
                    continue;
                }
                let before = if short == join.short {
                    root
                } else {
                    self.state_before_again(&event, &mut again).await?
                };
                self.judge_one_again(&event, before, &mut again)?;
            }
            let again = Arc::new(again);
            match self.try_complete(Arc::clone(&again), last_n).await? {
                true => return Ok(again.verdicts_changed && self.has_forks(&again)),
                // Something was sent meanwhile.
                false => continue,
            }
        }
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

    fn judge_one_again(&self, event: &Arc<Event>, before: NodeId, again: &mut Again) -> Result<(), Error> {
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
        let after = match (new.pdu.state_key(), new.header.flags.has(Flags::REJECTED)) {
            (Some(state_key), false) => match self.state_key_short(new.pdu.kind(), state_key)? {
                Some(key) => {
                    let store = self.nodes();
                    let store = crate::state_tree::Overlay {
                        base: &store,
                        new: &again.nodes,
                    };
                    let mut made = NewNodes::default();
                    let root =
                        crate::state_tree::apply(&store, before, &[(key, Some(new.short))], &mut made)?;
                    again.nodes.absorb(made);
                    root
                }
                None => before,
            },
            _ => before,
        };
        again.after.insert(new.short, after);
        again.events.push(new);
        Ok(())
    }

    /// Stores nodes of states that nothing in the room names yet.
    pub(crate) async fn store_nodes(&self, nodes: NewNodes) -> Result<(), Error> {
        let mut batch = hearth_storage::Batch::new();
        self.nodes().put(&nodes, &mut batch);
        if batch.is_empty() {
            return Ok(());
        }
        let key = self.0.key;
        self.0
            .rooms
            .cluster
            .commit(key.slot, |_| hearth_storage::Record {
                batch,
                ..hearth_storage::Record::default()
            })
            .await?;
        Ok(())
    }

    /// Makes the whole state the room's. False where the room has moved on meanwhile.
    async fn try_complete(&self, again: Arc<Again>, last_n: u64) -> Result<bool, Error> {
        self.store_nodes(again.nodes.clone()).await?;
        let tips: Vec<Short> = {
            let head = self.0.head.lock();
            head.record.tips.iter().map(|tip| tip.event.short).collect()
        };
        let mut made = NewNodes::default();
        let mut new_tips = Vec::new();
        for tip in self.tips_again(&again, &tips)? {
            let root = match again.after.get(&tip.short) {
                Some(root) => *root,
                // It stands before the join, and its state was always whole; or it came meanwhile, which shows below.
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
        let new_tips = Arc::new(new_tips);
        loop {
            let (room, again, tips, new_tips) = (
                self.clone(),
                Arc::clone(&again),
                tips.clone(),
                Arc::clone(&new_tips),
            );
            // All members of the room at once: more than a thread of requests is for.
            let section = move || -> Result<Option<crate::input::Submitted>, Stop> {
                let staged = room.stage_complete(&again, (&tips, &new_tips), last_n, root)?;
                Ok(staged.map(|staged| room.submit(*staged)))
            };
            let submitted = match self.0.rooms.pool.run(section).await {
                Ok(Some(submitted)) => submitted,
                Ok(None) => return Ok(false),
                Err(Stop::Wait(position)) => {
                    self.wait_durable(position).await?;
                    continue;
                }
                Err(Stop::Refuse(error)) => return Err(error),
                Err(Stop::Resolve(_)) => return Err(Error::Damaged("forward extremities")),
            };
            let position = self.stored(submitted).await?;
            // Who waits for it in `/sync` looks again.
            let change = crate::Change {
                timeline: true,
                ..crate::Change::default()
            };
            self.0.rooms.notify(self, &change, position, &[]);
            return Ok(true);
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
            let lifted = again.events.iter().filter(|event| is_lifted(event));
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
        staging.complete(&again.events, new_tips, root)?;
        Ok(Some(Box::new(staging.seal(None))))
    }
}

/// What comes of judging again.
#[derive(Default)]
struct Again {
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

/// Whether an event is part of the room.
fn stands(event: &Event) -> bool {
    let flags = event.header.flags;
    !flags.has(Flags::REJECTED) && !flags.has(Flags::SOFT_FAILED) && !flags.has(Flags::OUTLIER)
}

/// Whether an event was rejected and is not any more: it has no place yet.
pub(crate) fn is_lifted(event: &Event) -> bool {
    stands(event) && event.header.place.anchor == 0
}

impl Rooms {
    /// The rooms in which a user of another server may be, as most members are not known yet.
    pub fn partial_rooms_of_remote(self: &Arc<Self>, user: &UserId) -> Result<Vec<Room>, Error> {
        let ids: Vec<OwnedRoomId> = self.partial.iter().map(|id| id.clone()).collect();
        let mut found = Vec::new();
        for id in ids {
            let Some(room) = self.get(&id)?.filter(Room::is_resident) else {
                continue;
            };
            if room.may_have_server(user.server_name()) && room.membership(user)? == Membership::None {
                found.push(room);
            }
        }
        Ok(found)
    }

    /// Looks for rooms whose state was not whole when the process ended, and goes on with them.
    pub fn resume_partial(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        tasks::spawn("partial rooms", async move {
            let mut from = Vec::new();
            while let Some(next) = resume_some(&weak, from).await {
                from = next;
                tokio::task::yield_now().await;
            }
        });
    }
}

/// One stretch of the scan; gives where the next one begins.
async fn resume_some(rooms: &Weak<Rooms>, from: Vec<u8>) -> Option<Vec<u8>> {
    let rooms = rooms.upgrade()?;
    let mut looked_at = 0;
    let mut next = None;
    let mut found: Vec<OwnedRoomId> = Vec::new();
    let mut name: Option<OwnedRoomId> = None;
    let scanned = rooms
        .reader()
        .scan(Family::Room, &from, &[0xFF; 8], false, &mut |key, value| {
            looked_at += 1;
            if looked_at > SCAN_ROWS && key.get(6) == Some(&keys::ROOM_RECORD) {
                next = Some(key.to_vec());
                return false;
            }
            match key.get(6) {
                Some(&keys::ROOM_RECORD) => {
                    let record: Option<crate::load::RoomRecord> = record::decode(value).ok();
                    name = record.and_then(|record| record.room_id.try_into().ok());
                }
                Some(&(keys::ROOM_PARTIAL | keys::ROOM_LACKING)) => found.extend(name.take()),
                _ => {}
            }
            true
        });
    if let Err(error) = scanned {
        tracing::error!(%error, "rooms with a partial state cannot be looked for");
        return None;
    }
    for id in found {
        match rooms.get(&id) {
            Ok(Some(room)) if room.is_partial() => room.start_resync(),
            Ok(Some(room)) => room.start_filling(),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, room = %id, "a room with a partial state cannot be loaded"),
        }
    }
    next
}
