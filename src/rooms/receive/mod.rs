//! How an event of another server enters a room (server-server API, "Checks performed on receipt of a PDU").
//!
//! The phases: format; signatures and hash; the events before it, with the state there; the events that authorize it;
//! authorization by its auth events; by the state before it; then, under the room's lock, by the current state, and
//! its place. One event of a room at a time; nothing of another server is awaited under the lock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hearth_events::Pdu;
use ruma::{EventId, OwnedEventId, ServerName};
use smallvec::SmallVec;

use crate::{
    Error, Event, Flags, RemoteFailure, Room,
    event::{Origin, Short},
    input::Submitted,
    lacking::Lacks,
    lay::Laid,
    staging::{Judged, Outlier, Roots, Staged, Staging, Stop},
    state_tree::{self, NewNodes, NodeId},
};

mod chain;
mod gap;
mod history;
mod judge;
mod merge;
mod resolve;
mod verify;

pub(crate) use verify::Verified;

/// How many events a server is asked for to close a gap (server-server API, `get_missing_events`).
const MISSING_EVENTS_MAX: usize = 20;

/// So long other servers are asked for what one event needs, or a stretch of history, while what else comes for the room
/// waits. The state of a large room takes up to three minutes; what has come by then is kept for the next attempt.
const TURN_MAX: Duration = Duration::from_secs(5 * 60);

/// What became of an event of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is part of the room.
    Accepted,
    /// The current state does not allow it: kept, not shown, not built upon.
    SoftFailed,
    /// The rules do not allow it: kept, never shown.
    Rejected(String),
    /// The room had it.
    Known,
}

/// What is known of how an event is to be taken in.
#[derive(Debug, Default)]
pub(crate) struct Manner {
    /// The others are told of it by this server.
    pub(crate) forward: bool,
    /// Another server tells the others of it.
    pub(crate) handed_over: bool,
    /// The room is joined anew: it comes after everything that the room has.
    pub(crate) replaces_tips: bool,
    /// The state before it, where that is known: what this server knows of its previous events does not count then.
    pub(crate) state_before: Option<NodeId>,
    /// The local device that sent it.
    pub(crate) origin: Option<Origin>,
    /// The transaction by which it did.
    pub(crate) txn: Option<[u8; 16]>,
    /// Rows that belong to the operation.
    pub(crate) rows: hearth_storage::Batch,
}

impl Manner {
    /// Whether this server decides if the event gets into the room now. Of a membership that another server let in, it
    /// was that server.
    fn is_judged_here(&self) -> bool {
        !self.handed_over && !self.replaces_tips
    }
}

/// What is done with the help of another server while the room's turn is held.
pub(crate) async fn in_time<T>(
    server: &ServerName,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(TURN_MAX, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Remote(RemoteFailure::Failed {
            server: server.to_owned(),
            why: "what is needed from it takes too long".to_owned(),
        })),
    }
}

impl Room {
    /// Takes in an event that `origin` sent: the whole receipt procedure, with the events that must be fetched
    /// from there. An event that is here already changes nothing.
    ///
    /// # Errors
    /// [`Error::BadEvent`] and [`Error::Event`] for what is dropped: malformed, badly signed, or its auth events
    /// cannot be had. [`Error::Remote`] where the events before it cannot be had now.
    pub async fn receive(&self, origin: &ServerName, text: &[u8]) -> Result<Received, Error> {
        let pdu = Pdu::parse(self.rules(), text)?;
        self.check_room(&pdu)?;
        self.0.rooms.log.check_writable()?;
        let received = {
            let _turn = self.0.receiving.lock().await;
            self.check_open()?;
            in_time(origin, self.receive_parsed(origin, pdu)).await?
        };
        // After the turn: an event of ours may have to take one itself.
        if received != Received::Known {
            self.merge_extremities().await;
        }
        Ok(received)
    }

    pub(crate) fn check_room(&self, pdu: &Pdu) -> Result<(), Error> {
        if pdu.room_id() != self.id() {
            return Err(Error::BadEvent("The event is of another room".to_owned()));
        }
        Ok(())
    }

    async fn receive_parsed(&self, origin: &ServerName, pdu: Pdu) -> Result<Received, Error> {
        self.settle().await?;
        if self.placed(&pdu.event_id)?.is_some() {
            return Ok(Received::Known);
        }
        let verified = self.verify_one(pdu).await?;
        self.fetch_before(origin, &verified.pdu).await?;
        if self.placed(&verified.pdu.event_id)?.is_some() {
            return Ok(Received::Known);
        }
        self.take_in(origin, verified, Manner::default()).await
    }

    /// Waits until everything that was decided is readable.
    pub(crate) async fn settle(&self) -> Result<(), Error> {
        let position = self.0.head.lock().record.position;
        if position > 0 {
            self.wait_durable(position).await?;
        }
        Ok(())
    }

    /// The event, if it is more than an outlier.
    pub(crate) fn placed(&self, id: &EventId) -> Result<Option<Arc<Event>>, Error> {
        let event = self.event_by_id(id)?;
        Ok(event.filter(|event| !event.header.flags.has(Flags::OUTLIER)))
    }

    /// Which of the events before one are not here.
    pub(crate) fn missing_before(&self, pdu: &Pdu) -> Result<Vec<OwnedEventId>, Error> {
        self.not_placed(pdu.prev_events())
    }

    /// Those of some events that have no place here, each once.
    fn not_placed(&self, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, Error> {
        let mut missing = Vec::new();
        for id in ids {
            if self.placed(id)?.is_none() && !missing.contains(id) {
                missing.push(id.clone());
            }
        }
        Ok(missing)
    }

    /// Which events are missing before those that an event follows and that have no place in the timeline themselves,
    /// because they soft-failed: nothing else says that they are missing.
    pub(crate) fn missing_behind(&self, pdu: &Pdu) -> Result<Vec<OwnedEventId>, Error> {
        self.missing_behind_these(pdu.prev_events())
    }

    /// As [`Room::missing_behind`], behind some events.
    fn missing_behind_these(&self, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, Error> {
        let mut missing = Vec::new();
        let mut ahead: Vec<OwnedEventId> = ids.to_vec();
        let mut looked_at = 0;
        while let Some(id) = ahead.pop()
            && looked_at < MISSING_EVENTS_MAX
        {
            looked_at += 1;
            let Some(event) = self.placed(&id)? else { continue };
            if event.header.flags.has(Flags::SOFT_FAILED) {
                missing.extend(self.missing_before(&event.pdu)?);
                ahead.extend(event.pdu.prev_events().iter().cloned());
            }
        }
        Ok(missing)
    }

    /// Asks for the events before one that are not here, and takes them in. What cannot be had leaves a gap.
    pub(crate) async fn fetch_before(&self, origin: &ServerName, pdu: &Pdu) -> Result<(), Error> {
        if self.missing_before(pdu)?.is_empty() {
            return Ok(());
        }
        let tips: Vec<OwnedEventId> = {
            let head = self.0.head.lock();
            let tips = head.record.tips.iter().take(MISSING_EVENTS_MAX);
            tips.map(|tip| tip.event.id.clone()).collect()
        };
        let latest = [pdu.event_id.clone()];
        let remote = self.0.rooms.remote()?;
        let found = remote
            .missing_events(origin, self.id(), &tips, &latest, MISSING_EVENTS_MAX)
            .await;
        let events = match found {
            Ok(events) => events,
            Err(error) => {
                tracing::debug!(%error, room = %self.id(), "missing events cannot be had");
                return Ok(());
            }
        };
        if events.is_empty() {
            // It has them, since it names them, and keeps them to itself: what it sent is not built upon.
            return Err(Error::BadEvent(format!(
                "{origin} does not give the events before {}",
                pdu.event_id
            )));
        }
        let mut earlier: BTreeMap<(u64, OwnedEventId), Pdu> = BTreeMap::new();
        for text in events.iter().take(MISSING_EVENTS_MAX) {
            // One event that makes no sense voids the answer: what follows it could not be placed rightly.
            let event = Pdu::parse(self.rules(), text.get().as_bytes())?;
            self.check_room(&event)?;
            if event.event_id != pdu.event_id && self.placed(&event.event_id)?.is_none() {
                earlier.insert((event.depth(), event.event_id.clone()), event);
            }
        }
        for event in earlier.into_values() {
            let id = event.event_id.clone();
            let outcome = async {
                let verified = self.verify_one(event).await?;
                self.take_in(origin, verified, Manner::default()).await
            };
            match outcome.await {
                // Asking for the state after it would only go around what its server does not give.
                Err(error @ Error::MissingAuth(_)) if pdu.prev_events().contains(&id) => return Err(error),
                Err(error) => {
                    tracing::info!(%error, event = %id, room = %self.id(), "an event on the way to another is left out");
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Judges an event and gives it its place. Of previous events that are missing, the state after them is asked for,
    /// and of auth events those that did not come with it.
    pub(crate) async fn take_in(
        &self,
        origin: &ServerName,
        verified: Verified,
        manner: Manner,
    ) -> Result<Received, Error> {
        self.fill_lacking_of(verified.pdu.sender().server_name()).await;
        let missing = self.missing_before(&verified.pdu)?;
        // Of a partial state it is known anyway that it is not whole.
        let notes_lacks = !missing.is_empty() && !self.is_partial();
        if notes_lacks {
            self.take_lacks();
        }
        let mut roots = Vec::new();
        for id in &missing {
            roots.push(self.state_after_missing(origin, id).await?);
        }
        let lacks = match notes_lacks {
            true => self.take_lacks(),
            false => Lacks::default(),
        };
        self.fetch_auth(origin, &verified.pdu).await?;
        self.settle().await?;
        let event_id = verified.pdu.event_id.clone();
        let received = self.take_in_with(verified, missing, roots, manner).await?;
        if !lacks.is_empty() {
            self.lacks_before(event_id, origin, lacks).await?;
        }
        Ok(received)
    }

    /// As [`Room::take_in`], with the roots of the states after the missing events.
    pub(crate) async fn take_in_with(
        &self,
        verified: Verified,
        mut missing: Vec<OwnedEventId>,
        mut roots: Vec<NodeId>,
        manner: Manner,
    ) -> Result<Received, Error> {
        let pdu = verified.pdu;
        // An event of ours that another server signed may have come back by another way before the answer did.
        if self.placed(&pdu.event_id)?.is_some() {
            return Ok(Received::Known);
        }
        let mut nodes = NewNodes::default();
        let mut prev = SmallVec::new();
        for id in pdu.prev_events() {
            if let Some(event) = self.placed(id)? {
                prev.push(event.short);
                roots.push(self.state_after_into(&event, &mut nodes)?);
            }
        }
        if let Some(root) = manner.state_before {
            roots = vec![root];
        }
        let state_before = self.state_of_roots(roots, &mut nodes).await?;
        let verdict = match self.judge_by_auth_events(&pdu)? {
            Ok(()) => self.judge_by_known_state(&pdu, state_before, &mut nodes).await?,
            denied => denied,
        };
        let (pdu, recommended) = match verdict {
            Ok(()) if manner.is_judged_here() => self.checked_by_policy(pdu).await?,
            _ => (pdu, true),
        };
        missing.extend(self.missing_behind(&pdu)?);
        let known = self.event_by_id(&pdu.event_id)?.map(|event| event.short);
        let mut flags = Flags::default();
        if verified.redacted {
            flags.0 |= Flags::REDACTED;
        }
        if manner.forward {
            flags.0 |= Flags::FORWARD;
        }
        if manner.handed_over {
            flags.0 |= Flags::HANDED_OVER;
        }
        if verdict.is_err() {
            flags.0 |= Flags::REJECTED;
        }
        if !recommended {
            flags.0 |= Flags::SOFT_FAILED;
        }
        let judged = Judged {
            known,
            prev,
            auth: self.shorts_of(pdu.auth_events())?,
            pdu,
            state_before,
            nodes,
            flags,
            missing,
            replaces_tips: manner.replaces_tips,
            origin: manner.origin,
            txn: manner.txn,
        };
        let flags = self.place_judged(judged, manner.rows).await?;
        Ok(match verdict {
            Err(denied) => Received::Rejected(denied),
            Ok(()) if flags.has(Flags::SOFT_FAILED) => Received::SoftFailed,
            Ok(()) => Received::Accepted,
        })
    }

    /// The section under the lock, as often as it must be tried: what it lacks is made outside.
    async fn place_judged(
        &self,
        mut judged: Judged,
        mut rows: hearth_storage::Batch,
    ) -> Result<Flags, Error> {
        let mut roots = Roots::new();
        let mut prepared = false;
        let mut laid: Option<Laid<'_>> = None;
        loop {
            let rows_of_try = std::mem::take(&mut rows);
            let placed = match judged.replaces_tips {
                // The whole state becomes the current one: of a large room that is more than a thread of requests is for.
                true => {
                    let (room, judged, roots) = (self.clone(), judged.clone(), roots.clone());
                    let section = move || room.place_and_submit(&judged, &roots, rows_of_try);
                    self.0.rooms.pool.run(section).await
                }
                false => self.place_and_submit(&judged, &roots, rows_of_try),
            };
            let stop = match placed {
                Ok((submitted, flags)) => {
                    self.stored(submitted).await?;
                    if let Some(laid) = laid {
                        laid.settle().await?;
                    }
                    return Ok(flags);
                }
                Err(unplaced) => {
                    let (stop, given_back) = *unplaced;
                    rows = given_back;
                    stop
                }
            };
            match stop {
                Stop::Wait(position) => self.wait_durable(position).await?,
                Stop::Refuse(error) => return Err(error),
                Stop::LayOut(layout) => {
                    drop(laid.take());
                    laid = Some(self.lay_out(*layout).await?);
                }
                Stop::Resolve(_) if !prepared => {
                    prepared = true;
                    self.prepare_merge(&mut judged).await?;
                }
                Stop::Resolve(set) => {
                    self.settle().await?;
                    let (root, made) = self.resolve(set.clone()).await?;
                    judged.nodes.absorb(made);
                    roots.insert(set, root);
                }
            }
        }
    }

    /// Makes the event and the state after it readable, as the resolution with other extremities needs them.
    async fn prepare_merge(&self, judged: &mut Judged) -> Result<(), Error> {
        if judged.known.is_none() && judged.pdu.state_key().is_some() {
            self.store_outliers(vec![Outlier {
                pdu: judged.pdu.clone(),
                rejected: false,
                redacted: judged.flags.has(Flags::REDACTED),
            }])
            .await?;
            judged.known = self.short_of(&judged.pdu.event_id)?;
        }
        loop {
            let stop = match self.try_prepare(judged) {
                Ok(staged) => {
                    self.store(staged).await?;
                    return Ok(());
                }
                Err(stop) => stop,
            };
            match stop {
                Stop::Wait(position) => self.wait_durable(position).await?,
                Stop::Refuse(error) => return Err(error),
                Stop::Resolve(_) | Stop::LayOut(_) => return Err(Error::Damaged("forward extremities")),
            }
        }
    }

    fn try_prepare(&self, judged: &Judged) -> Result<Box<Staged>, Stop> {
        let mut head = self.0.head.lock();
        head.prune(self.0.rooms.log.published(self.0.shard));
        let mut staging = Staging::new(self, head);
        if let Some(barrier) = staging.barrier() {
            return Err(Stop::Wait(barrier));
        }
        staging.make_state_after(judged)?;
        Ok(Box::new(staging.seal(None)?))
    }

    /// Places an event and hands it to the log with more rows, which are given back where it cannot be placed.
    fn place_and_submit(
        &self,
        judged: &Judged,
        roots: &Roots,
        rows: hearth_storage::Batch,
    ) -> Result<(Submitted, Flags), Box<(Stop, hearth_storage::Batch)>> {
        match self.try_place(judged, roots) {
            Ok((staged, flags)) => Ok((self.submit(staged.with_rows(rows)), flags)),
            Err(stop) => Err(Box::new((stop, rows))),
        }
    }

    fn try_place(&self, judged: &Judged, roots: &Roots) -> Result<(Box<Staged>, Flags), Stop> {
        let mut head = self.0.head.lock();
        head.prune(self.0.rooms.log.published(self.0.shard));
        let mut staging = Staging::new(self, head);
        if let Some(barrier) = staging.barrier() {
            return Err(Stop::Wait(barrier));
        }
        let flags = staging.place(judged, roots)?;
        // A transaction whose event did not get into the room may be tried again.
        let txn = judged
            .txn
            .filter(|_| !flags.has(Flags::REJECTED) && !flags.has(Flags::SOFT_FAILED));
        Ok((Box::new(staging.seal(txn)?), flags))
    }

    /// The short ids of the auth events of an event, which were all fetched before.
    pub(crate) fn shorts_of(&self, ids: &[OwnedEventId]) -> Result<SmallVec<[Short; 4]>, Error> {
        let mut shorts = SmallVec::new();
        for id in ids {
            let short = self.short_of(id)?;
            shorts.push(short.ok_or_else(|| Error::BadEvent(format!("the auth event {id} is not known")))?);
        }
        Ok(shorts)
    }

    /// As [`Room::state_after`], keeping the nodes where they may not be stored.
    pub(crate) fn state_after_into(&self, event: &Event, nodes: &mut NewNodes) -> Result<NodeId, Error> {
        let before = event.header.state_before;
        let (Some(state_key), false) = (event.pdu.state_key(), event.header.flags.has(Flags::REJECTED))
        else {
            return Ok(before);
        };
        let Some(key) = self.state_key_short(event.pdu.kind(), state_key)? else {
            return Ok(before);
        };
        Ok(state_tree::apply(
            &self.nodes(),
            before,
            &[(key, Some(event.short))],
            nodes,
        )?)
    }
}
