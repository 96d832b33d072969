//! Rooms that were joined with most of their members left out (MSC3706, MSC3902): the user is in the room after one
//! round trip, and the state fills in behind.
//!
//! While the state is partial, events are judged by their auth events alone. When the whole state is here, the events
//! since the join are judged again with it. What waits for that is in the room's own records, so that it goes on
//! after a restart.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use hearth_core::tasks;
use hearth_events::Pdu;
use hearth_storage::{Family, record};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Event, Flags, Room, Rooms,
    event::Short,
    keys,
    lacking::Lacking,
    staging::{Staged, Staging, Stop},
    state_tree::{NewNodes, NodeId},
};

/// The pause after a failed attempt to get the whole state; it doubles up to the second figure.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(600);

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
        loop {
            self.settle().await?;
            let join = self.placed(join)?.ok_or(Error::Damaged("join"))?;
            let mut again = Again::default();
            again.after.insert(join.short, root);
            let (last_short, last_n) = {
                let head = self.0.head.lock();
                (head.record.last_short, head.record.last_n)
            };
            // In the order of their numbers, rejected and soft-failed ones too.
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
            match self.try_complete(Arc::new(again), last_n).await? {
                true => return Ok(()),
                // Something was sent meanwhile.
                false => continue,
            }
        }
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
        let verdict = match self.judge_by_auth_events(&event.pdu)? {
            Ok(()) => self.judge_by_state(&event.pdu, before, &again.nodes)?,
            denied => denied,
        };
        if let Err(denied) = verdict {
            if new.is_visible_kind() {
                tracing::info!(event = %event.id(), room = %self.id(), %denied, "an event was accepted wrongly");
            }
            new.header.flags.0 |= Flags::REJECTED;
        }
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
        let mut roots: Vec<NodeId> = Vec::new();
        for tip in &tips {
            let root = match again.after.get(tip) {
                Some(root) => *root,
                // It stands before the join, and its state was always whole; or it came meanwhile, which shows below.
                None => {
                    let tip = self.event(*tip)?.ok_or(Error::Damaged("forward extremity"))?;
                    self.state_after_into(&tip, &mut made)?
                }
            };
            roots.push(root);
        }
        let root = self.state_of_roots(roots, &mut made).await?;
        self.store_nodes(made).await?;
        loop {
            let (room, again, tips) = (self.clone(), Arc::clone(&again), tips.clone());
            // All members of the room at once: more than a thread of requests is for.
            let section = move || -> Result<Option<crate::input::Submitted>, Stop> {
                let staged = room.stage_complete(&again, &tips, last_n, root)?;
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

    fn stage_complete(
        &self,
        again: &Again,
        tips: &[Short],
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
        staging.complete(&again.events, &again.after, root)?;
        Ok(Some(Box::new(staging.seal(None))))
    }
}

/// What comes of judging again.
#[derive(Default)]
struct Again {
    events: Vec<Event>,
    after: HashMap<Short, NodeId>,
    nodes: NewNodes,
}

impl Rooms {
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
