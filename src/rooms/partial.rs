//! Rooms that were joined with most of their members left out (MSC3706, MSC3902): the user is in the room after one
//! round trip, and the state fills in behind.
//!
//! While the state is partial, events are judged by their auth events alone. When the whole state is here, the events
//! since the join are judged again with it. What waits for that is in the room's own records, so that it goes on
//! after a restart.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hearth_core::{error::errcode, tasks};
use hearth_events::Pdu;
use hearth_storage::{Family, record};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, UserId};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    Error, Event, Membership, RemoteFailure, Room, Rooms,
    event::Short,
    judge_again::StatesBefore,
    keys,
    state_tree::{self, NewNodes, NodeId},
};

/// The name of the task that gets the rest of a room's state.
const TASK: &str = "partial room state";

/// The pause after a failed attempt to get the whole state; it doubles up to the second figure.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// So often in a row, which takes a minute, the server that let the user in says that nobody of this server is in the room
/// before it is believed. It knew of the join first, and others that say the same may not have heard of it yet.
const SHUT_OUT_TRIES: u32 = 6;

/// About how large one batch of nodes gets.
const NODES_BATCH_BYTES: usize = 512 << 10;

/// Of so many later joins the state before them is asked for too; the newest count.
const LATER_JOINS_MAX: usize = 20;

/// So often, which takes a minute, the state before a join is asked for after which this server left the room and joined it
/// anew: the room is whole without it, and what was said then stays as it was judged.
const OLD_TRIES: u32 = 5;

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
    /// Later joins through other servers before which the state is not whole either, and who let the users in.
    #[serde(default)]
    pub(crate) later: Vec<(OwnedEventId, OwnedServerName)>,
    /// Where this server left the room since the first join: the one of `later` with which it came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) came_back: Option<OwnedEventId>,
}

impl PartialState {
    /// What is known of a room that was just joined through `resident`.
    pub(crate) fn new(join: OwnedEventId, resident: OwnedServerName, servers: Vec<OwnedServerName>) -> Self {
        Self {
            join,
            resident,
            servers,
            later: Vec::new(),
            came_back: None,
        }
    }

    /// What is known when one more user joins before the state is whole: which servers are in the room, and the join, where
    /// the state before it is what the server gave that let the user in.
    pub(crate) fn with_join(
        &self,
        later: Option<(OwnedEventId, OwnedServerName)>,
        servers: Vec<OwnedServerName>,
    ) -> Self {
        let mut all = self.clone();
        let known: BTreeSet<&OwnedServerName> = self.servers.iter().collect();
        all.servers
            .extend(servers.into_iter().filter(|server| !known.contains(server)));
        all.later.extend(later);
        let too_many = all.later.len().saturating_sub(LATER_JOINS_MAX);
        all.later.drain(..too_many);
        all
    }

    /// What is known when this server comes back before the state was ever whole.
    pub(crate) fn with_return(
        &self,
        join: OwnedEventId,
        resident: OwnedServerName,
        mut servers: Vec<OwnedServerName>,
    ) -> Self {
        servers.push(resident.clone());
        let all = self.with_join(Some((join.clone(), resident)), servers);
        Self {
            came_back: Some(join),
            ..all
        }
    }

    /// The join since which this server is in the room.
    fn current_join(&self) -> &OwnedEventId {
        self.came_back.as_ref().unwrap_or(&self.join)
    }

    /// The joins before which the state is not whole, with who let the users in, and whether this server left the room
    /// since.
    fn joins(&self) -> Vec<(&OwnedEventId, &OwnedServerName, bool)> {
        let first = std::iter::once((&self.join, &self.resident));
        let all: Vec<_> = first
            .chain(self.later.iter().map(|(join, by)| (join, by)))
            .collect();
        let current = all.iter().position(|(join, _)| *join == self.current_join());
        let joins = all.into_iter().enumerate();
        joins
            .map(|(at, (join, by))| (join, by, current.is_some_and(|current| at < current)))
            .collect()
    }

    /// The join since which this server is in the room, with who let the user in.
    fn current(&self) -> (&OwnedEventId, &OwnedServerName) {
        let current = self.joins().into_iter().find(|(_, _, is_old)| !is_old);
        current.map_or((&self.join, &self.resident), |(join, by, _)| (join, by))
    }
}

/// The task that fetches the rest of a room's state.
#[derive(Default)]
pub(crate) struct Resync {
    runs: AtomicBool,
    /// Somebody has joined meanwhile.
    news: Notify,
}

/// Holds while the task runs, also if that ends in a panic.
struct Running<'a>(&'a Resync);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.runs.store(false, Ordering::Release);
    }
}

/// Whether another server refuses because this one is not in the room.
fn is_forbidden(error: &Error) -> bool {
    matches!(error, Error::Remote(RemoteFailure::Refused { errcode, .. }) if errcode == errcode::FORBIDDEN)
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
        self.0.full_since.load(Ordering::Acquire)
    }

    /// The servers that were known to be in the room until the state became whole, though the partial state did not show them.
    pub fn servers_until_full(&self) -> Vec<OwnedServerName> {
        self.0.servers_until_full.lock().clone()
    }

    /// Servers in the room that its partial state does not show.
    pub(crate) fn partial_servers(&self) -> Vec<OwnedServerName> {
        let partial = self.0.partial.borrow();
        partial
            .as_ref()
            .map(|partial| partial.servers.clone())
            .unwrap_or_default()
    }

    /// The join since which the state is not whole, while it is not.
    pub(crate) fn partial_since(&self) -> Result<Option<Short>, Error> {
        let join = self
            .0
            .partial
            .borrow()
            .as_ref()
            .map(|partial| partial.join.clone());
        match join {
            Some(join) => self.short_of(&join),
            None => Ok(None),
        }
    }

    /// Fetches the rest of the state in the background, until it is here or nobody of this server is in the room. One task
    /// does it for all who join meanwhile.
    pub(crate) fn start_resync(&self) {
        if self.0.resync.runs.swap(true, Ordering::AcqRel) {
            self.0.resync.news.notify_one();
            return;
        }
        let room = self.clone();
        tasks::spawn(TASK, async move {
            loop {
                let running = Running(&room.0.resync);
                let may_go_on = room.resync().await;
                drop(running);
                // Somebody may have joined since this task looked last.
                let wanted = may_go_on && room.is_partial() && room.is_resident();
                if !wanted || room.0.resync.runs.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }

    /// One run of the task; false where the process ends.
    async fn resync(&self) -> bool {
        let mut pause = RETRY_FIRST;
        let mut shut_out = 0;
        let mut tries = 0;
        while self.is_partial() && self.is_resident() {
            tries += 1;
            // After a panic it is asked for again like after a failure: nobody else would.
            match tasks::caught(TASK, self.complete_state(tries)).await {
                Some(Ok(())) if !self.is_partial() => return true,
                // Somebody else joined meanwhile.
                Some(Ok(())) => {}
                Some(Err(Error::Storage(hearth_storage::Error::Stopped))) => return false,
                Some(Err(error)) => {
                    tracing::info!(%error, room = %self.id(), ?pause, "the whole state is not here yet");
                    shut_out = if is_forbidden(&error) { shut_out + 1 } else { 0 };
                }
                None => {
                    tracing::error!(room = %self.id(), ?pause, "getting the whole state panicked; it is tried again");
                    shut_out = 0;
                }
            }
            if shut_out >= SHUT_OUT_TRIES {
                // Where that panics they are taken out after the next tries.
                tasks::caught(TASK, self.leave_all_here()).await;
                return true;
            }
            tokio::select! {
                biased;
                // Somebody who has just joined was let in by a server that is there.
                () = self.0.resync.news.notified() => (pause, shut_out, tries) = (RETRY_FIRST, 0, 0),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
            }
        }
        true
    }

    /// Takes the users of this server out of a room that does not have them: their join stood against something that was
    /// said at the same time, such as that nobody joins any more, and lost. Here this cannot show, for want of the state; so
    /// they would be in a room of which nothing is heard, and could not join it anew.
    async fn leave_all_here(&self) {
        let mut members = Vec::new();
        let visited = self.visit_local_members(&mut |member| {
            members.push(member.to_owned());
            true
        });
        if let Err(error) = visited {
            tracing::error!(%error, room = %self.id(), "the members of a room cannot be read");
        }
        for member in members {
            tracing::info!(room = %self.id(), %member, "the other servers of a room do not have a user who joined");
            let reason = "The other servers of the room did not take the join";
            if let Err(error) = self.leave(&member, Some(reason)).await {
                tracing::warn!(%error, room = %self.id(), %member, "a user cannot leave a room that does not have him");
            }
        }
    }

    /// Asks for the whole state, for the nth time, and judges with it what came since the join. The error is that of the
    /// server that let the user in.
    async fn complete_state(&self, tries: u32) -> Result<(), Error> {
        let Some(partial) = self.0.partial.borrow().clone() else {
            return Ok(());
        };
        self.take_lacks();
        let mut roots = Vec::with_capacity(1 + partial.later.len());
        for (join, resident, is_old) in partial.joins() {
            let event = self.placed(join)?.ok_or(Error::Damaged("join"))?;
            // Where nothing was missed while this server was out, the state follows from that before the first join.
            if partial.came_back.is_some() && !roots.is_empty() && self.follows(&event, &partial.join)? {
                continue;
            }
            let root = self
                .whole_state_of_any(resident, &partial.servers, &event.pdu)
                .await;
            match root {
                Ok(root) => roots.push((join.clone(), root)),
                Err(error) if is_old && tries >= OLD_TRIES => {
                    tracing::info!(%error, room = %self.id(), %join, "what was said before this server left stays as it was judged");
                }
                // It says nothing of whether this server is in the room now.
                Err(error) if is_old => {
                    return Err(Error::NotFound(format!("the state before {join}: {error}")));
                }
                Err(error) => return Err(error),
            }
        }
        let _turn = self.0.receiving.lock().await;
        if self.0.partial.borrow().as_deref() != Some(&*partial) {
            // Somebody else joined meanwhile, or the room was left and joined anew.
            return Ok(());
        }
        let missing = self.take_lacks();
        let (join, resident) = partial.current();
        let lacks = !missing.is_empty() && self.lacks_at_join(join, resident, missing).await?;
        self.judge_again(&StatesBefore {
            roots,
            completes: Some(partial.current_join().clone()),
            servers: BTreeSet::new(),
        })
        .await?;
        if lacks {
            self.start_filling();
        }
        Ok(())
    }

    /// Whether the state before an event follows from that before a join: all events right before it were here when it came,
    /// and came no sooner than the join. Where they came later, nothing has been made of them for it.
    fn follows(&self, event: &Event, join: &EventId) -> Result<bool, Error> {
        let Some(join) = self.placed(join)? else {
            return Ok(false);
        };
        let prev = &event.header.prev;
        Ok(prev.len() == event.pdu.prev_events().len() && prev.iter().all(|prev| *prev >= join.short))
    }

    /// The state before a join, as the server has it that let the user in, or else another one. The error is the first
    /// server's.
    async fn whole_state_of_any(
        &self,
        resident: &OwnedServerName,
        servers: &[OwnedServerName],
        join: &Pdu,
    ) -> Result<NodeId, Error> {
        let mut failure = None;
        let others = servers.iter().filter(|server| *server != resident);
        for server in std::iter::once(resident).chain(others).take(10) {
            if *server == self.0.rooms.server_name {
                continue;
            }
            match self.whole_state_before(server, join).await {
                Ok(root) => return Ok(root),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        Err(failure.unwrap_or_else(|| Error::NotFound("nobody knows the state".to_owned())))
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

    /// A state from which another server left most members out, with those in it that the current state has: the users of this
    /// server must not seem to be out of the room until the rest is here.
    pub(crate) async fn with_known_members(&self, given: NodeId) -> Result<NodeId, Error> {
        let current = self.view().root;
        let mut said = Vec::new();
        state_tree::diff(&self.nodes(), current, given, &mut |key, _, short| {
            said.extend(short.map(|short| (key, Some(short))));
        })?;
        let mut made = NewNodes::default();
        let root = state_tree::apply(&self.nodes(), current, &said, &mut made)?;
        self.store_nodes(made).await?;
        Ok(root)
    }

    /// Stores nodes of states that nothing in the room names yet. Nobody looks for them before, so that those of a large
    /// state come in several batches.
    pub(crate) async fn store_nodes(&self, nodes: NewNodes) -> Result<(), Error> {
        let mut batch = hearth_storage::Batch::new();
        self.nodes().put(&nodes, &mut batch);
        let cluster = &self.0.rooms.cluster;
        for part in batch.into_parts(NODES_BATCH_BYTES) {
            self.check_open()?;
            cluster
                .commit(self.0.key.slot, |_| hearth_storage::Record::of(part))
                .await?;
        }
        Ok(())
    }
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
        // One that cannot be loaded holds up no other.
        match tasks::caught_now(TASK, || rooms.get(&id)) {
            Some(Ok(Some(room))) if room.is_partial() => room.start_resync(),
            Some(Ok(Some(room))) => room.start_filling(),
            Some(Ok(None)) => {}
            Some(Err(error)) => {
                tracing::error!(%error, room = %id, "a room with a partial state cannot be loaded");
            }
            None => tracing::error!(room = %id, "loading a room with a partial state panicked"),
        }
    }
    next
}
