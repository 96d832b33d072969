//! The state after events that are not here.

use std::collections::HashSet;

use hearth_events::Pdu;
use ruma::{EventId, OwnedEventId, ServerName};

use super::chain::Kept;
use crate::{
    Error, Flags, RemoteEvents, RemoteFailure, Room,
    staging::{Staged, Staging, StateOf, Stop},
    state_tree::{self, NodeId},
};

/// Up to how many unknown events of a state are asked for one by one; where more are missing, the whole state is.
const ALONE_MAX: usize = 24;

/// So many other servers are asked for events that the one which names them does not give.
const SERVERS_MAX: usize = 3;

/// How many events a state may have.
const STATE_EVENTS_MAX: usize = 1_000_000;

/// So many keys of a state get their numbers in one batch, which then has about 300 KiB.
const KEYS_AT_ONCE: usize = 4_096;

impl Room {
    /// The root of the state after an event that has no place here, as `origin` has it. Everything in it was
    /// checked by its auth events.
    pub(crate) async fn state_after_missing(
        &self,
        origin: &ServerName,
        id: &EventId,
    ) -> Result<NodeId, Error> {
        let remote = self.0.rooms.remote()?.clone();
        let ids = remote.state_ids(origin, self.id(), id).await?;
        if ids.state.len() + ids.auth_chain.len() > STATE_EVENTS_MAX {
            return Err(Error::BadEvent("the state has too many events".to_owned()));
        }
        let wanted: Vec<OwnedEventId> = ids.state.iter().chain(&ids.auth_chain).cloned().collect();
        let unknown = self.unknown(&wanted)?;
        let by_itself = unknown.len() <= ALONE_MAX || unknown.len() * 10 < wanted.len();
        let mut kept = Kept::default();
        if by_itself {
            let (events, failure) = self.fetch_alone(origin, &unknown).await?;
            kept = self.keep_chain(events).await?;
            if let Some(failure) = failure {
                return Err(failure.into());
            }
        }
        // Some servers do not give a single event that they know of a state alone.
        if !by_itself || !self.unknown(&ids.state)?.is_empty() {
            match remote.state(origin, self.id(), id).await {
                Ok(state) => {
                    let events = state.state.into_iter().chain(state.auth_chain).collect();
                    let given = std::mem::take(&mut kept.given);
                    kept = self.keep_chain(events).await?;
                    kept.given.extend(given);
                }
                Err(error @ RemoteFailure::Refused { .. }) if by_itself => {
                    tracing::debug!(%error, "events of a state cannot be had");
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.ask_others(origin, &wanted, kept).await?;
        // The event itself: the state after it has it, if it is a state event.
        let mut state = ids.state;
        let (mut itself, failure) = match self.short_of(id)? {
            Some(_) => (Vec::new(), None),
            None => self.fetch_alone(origin, &[id.to_owned()]).await?,
        };
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        if let Some(text) = itself.pop()
            && let Ok(pdu) = Pdu::parse(self.rules(), text.get().as_bytes())
            && pdu.event_id == *id
            && pdu.state_key().is_some()
        {
            let unknown = self.unknown(pdu.auth_events())?;
            let (mut events, failure) = self.fetch_alone(origin, &unknown).await?;
            if failure.is_none() {
                events.push(text);
            }
            self.keep_chain(events).await?;
            if let Some(failure) = failure {
                return Err(failure.into());
            }
        }
        self.settle().await?;
        if self
            .event_by_id(id)?
            .is_some_and(|event| event.pdu.state_key().is_some())
        {
            state.push(id.to_owned());
        }
        self.state_given(&state).await
    }

    /// Asks other servers in the room for those events of a state that `origin` names and does not give. What none of them
    /// gives is left out, and the room remembers that something is.
    async fn ask_others(
        &self,
        origin: &ServerName,
        wanted: &[OwnedEventId],
        mut kept: Kept,
    ) -> Result<(), Error> {
        let missing = |kept: &Kept| -> Result<Vec<OwnedEventId>, Error> {
            let mut missing = self.unknown(wanted)?;
            missing.retain(|id| !kept.given.contains(id));
            Ok(missing)
        };
        let mut lacking = missing(&kept)?;
        if lacking.is_empty() {
            return Ok(());
        }
        for server in self.servers_to_ask(SERVERS_MAX) {
            if server == *origin {
                continue;
            }
            lacking.truncate(ALONE_MAX);
            let (mut events, _) = self.fetch_alone(&server, &lacking).await?;
            if events.is_empty() {
                continue;
            }
            for pdu in kept.unjudged {
                events.push(serde_json::from_slice(&pdu.json).map_err(|_| Error::Damaged("event"))?);
            }
            let more = self.keep_chain(events).await?;
            kept.given.extend(more.given);
            kept.unjudged = more.unjudged;
            lacking = missing(&kept)?;
            if lacking.is_empty() {
                return Ok(());
            }
        }
        tracing::info!(%origin, missing = lacking.len(), room = %self.id(), "events of a state are given by nobody");
        self.note_missing_event();
        Ok(())
    }

    /// Asks for events one by one. What the other server refuses is left out; where it does not answer, the failure is
    /// given too: a state without events that others have would be another state.
    async fn fetch_alone(
        &self,
        origin: &ServerName,
        ids: &[OwnedEventId],
    ) -> Result<(RemoteEvents, Option<RemoteFailure>), Error> {
        let remote = self.0.rooms.remote()?;
        let mut events = Vec::with_capacity(ids.len());
        for id in ids {
            match remote.event(origin, id).await {
                Ok(event) => events.push(event),
                Err(failure @ RemoteFailure::Failed { .. }) => return Ok((events, Some(failure))),
                Err(error) => tracing::debug!(%error, "an event of a state cannot be had"),
            }
        }
        Ok((events, None))
    }

    /// The root of the state before an event, as `origin` has it: for history that is filled in.
    pub(crate) async fn state_before_of(&self, origin: &ServerName, id: &EventId) -> Result<NodeId, Error> {
        let remote = self.0.rooms.remote()?.clone();
        let ids = remote.state_ids(origin, self.id(), id).await?;
        if ids.state.len() + ids.auth_chain.len() > STATE_EVENTS_MAX {
            return Err(Error::BadEvent("the state has too many events".to_owned()));
        }
        let wanted: Vec<OwnedEventId> = ids.state.iter().chain(&ids.auth_chain).cloned().collect();
        let unknown = self.unknown(&wanted)?;
        if !unknown.is_empty() {
            let state = remote.state(origin, self.id(), id).await?;
            let events = state.state.into_iter().chain(state.auth_chain).collect();
            let kept = self.keep_chain(events).await?;
            self.ask_others(origin, &wanted, kept).await?;
            self.settle().await?;
        }
        self.state_given(&ids.state).await
    }

    /// The root of a state that another server has given.
    ///
    /// # Errors
    /// [`Error::BadEvent`] where it has no create event: then it is that of no room, and a room that takes it for its own
    /// cannot be read any more.
    async fn state_given(&self, ids: &[OwnedEventId]) -> Result<NodeId, Error> {
        let root = self.state_of(ids).await?;
        match self.state_at(root, "m.room.create", "")? {
            Some(_) => Ok(root),
            None => Err(Error::BadEvent("a state without a create event".to_owned())),
        }
    }

    /// The root of a state of accepted events; of two for one key the later one counts. Its nodes are stored.
    pub(crate) async fn state_of(&self, ids: &[OwnedEventId]) -> Result<NodeId, Error> {
        let mut shorts = Vec::with_capacity(ids.len());
        let mut seen = HashSet::new();
        for id in ids {
            shorts.extend(self.short_of(id)?.filter(|short| seen.insert(*short)));
        }
        let mut entries: Vec<StateOf> = Vec::with_capacity(shorts.len());
        for chunk in shorts.chunks(256) {
            for event in self.events(chunk)? {
                if let (Some(state_key), false) =
                    (event.pdu.state_key(), event.header.flags.has(Flags::REJECTED))
                {
                    entries.push((event.pdu.kind().to_owned(), state_key.to_owned(), event.short));
                }
            }
        }
        self.make_state(&entries).await
    }

    /// The root of a state that consists of some events, by type and state key. Its nodes are stored, and its keys have
    /// numbers. A large one is stored bit by bit: nobody reads a key's number or a node before a state that is named has it.
    pub(crate) async fn make_state(&self, entries: &[StateOf]) -> Result<NodeId, Error> {
        if entries.len() <= KEYS_AT_ONCE {
            return self
                .under_lock(|staging| Ok((staging.make_state(entries)?, !entries.is_empty())))
                .await;
        }
        let mut numbered = Vec::with_capacity(entries.len());
        for some in entries.chunks(KEYS_AT_ONCE) {
            numbered.extend(self.under_lock(|staging| staging.number_keys(some)).await?);
        }
        let (root, nodes) = state_tree::build(numbered);
        self.store_nodes(nodes).await?;
        Ok(root)
    }

    /// Does something under the room's lock, and stores what came of it, if the work says that anything did.
    async fn under_lock<T>(
        &self,
        work: impl Fn(&mut Staging<'_>) -> Result<(T, bool), Stop>,
    ) -> Result<T, Error> {
        loop {
            match self.try_under_lock(&work) {
                Ok((done, None)) => return Ok(done),
                Ok((done, Some(staged))) => {
                    self.store(staged).await?;
                    return Ok(done);
                }
                Err(Stop::Wait(position)) => self.wait_durable(position).await?,
                Err(Stop::Refuse(error)) => return Err(error),
                Err(Stop::Resolve(_) | Stop::LayOut(_)) => return Err(Error::Damaged("forward extremities")),
            }
        }
    }

    fn try_under_lock<T>(
        &self,
        work: impl Fn(&mut Staging<'_>) -> Result<(T, bool), Stop>,
    ) -> Result<(T, Option<Box<Staged>>), Stop> {
        let mut head = self.0.head.lock();
        head.prune(self.0.rooms.log.published(self.0.shard));
        let mut staging = Staging::new(self, head);
        if let Some(barrier) = staging.barrier() {
            return Err(Stop::Wait(barrier));
        }
        let (done, any) = work(&mut staging)?;
        let staged = any.then(|| staging.seal(None)).transpose()?;
        Ok((done, staged.map(Box::new)))
    }
}
