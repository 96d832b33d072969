//! Auth chains and states of other servers: events that are kept without a place in the timeline.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use hearth_events::{AuthEvent, AuthInput, AuthState, Pdu};
use ruma::{OwnedEventId, ServerName};

use super::Verified;
use crate::{
    Error, Flags, RemoteEvents, RemoteFailure, Room,
    staging::{Outlier, Staged, Staging, Stop},
};

/// How many auth events are fetched one by one for one event. Servers send whole chains where more are missing.
const FETCHED_ALONE_MAX: usize = 64;

/// About how large one batch of outliers gets.
const BATCH_BYTES: usize = 512 << 10;

/// What became of the events of a chain or a state.
#[derive(Default)]
pub(crate) struct Kept {
    /// The ids of all that were given, also of those that are left out.
    pub(crate) given: HashSet<OwnedEventId>,
    /// Events that are left out because what authorizes them was not given.
    pub(crate) unjudged: Vec<Pdu>,
}

/// What authorization reads of an event of a chain.
struct Link {
    pdu: Pdu,
    rejected: bool,
}

impl Room {
    /// Makes sure that the auth events of an event are here.
    ///
    /// # Errors
    /// [`Error::MissingAuth`] where they cannot be had: the event cannot be judged. [`Error::Remote`] where the other
    /// server did not answer: it may be judged later.
    pub(crate) async fn fetch_auth(&self, origin: &ServerName, pdu: &Pdu) -> Result<(), Error> {
        if self.unknown(pdu.auth_events())?.is_empty() {
            return Ok(());
        }
        let remote = self.0.rooms.remote()?.clone();
        let mut failure = None;
        match remote.event_auth(origin, self.id(), &pdu.event_id).await {
            Ok(chain) => drop(self.keep_chain(chain).await?),
            Err(error) => {
                tracing::debug!(%error, event = %pdu.event_id, "an auth chain cannot be had");
                failure = Some(error);
            }
        }
        let mut wanted = self.unknown(pdu.auth_events())?;
        let mut asked: HashSet<OwnedEventId> = HashSet::new();
        let mut pool: RemoteEvents = Vec::new();
        while let Some(id) = wanted.pop() {
            if asked.len() >= FETCHED_ALONE_MAX || !asked.insert(id.clone()) {
                continue;
            }
            let text = match remote.event(origin, &id).await {
                Ok(text) => text,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            if let Ok(found) = Pdu::parse(self.rules(), text.get().as_bytes())
                && found.event_id == id
            {
                if found.room_id() == self.id() {
                    wanted.extend(self.unknown(found.auth_events())?);
                }
                pool.push(text);
            }
        }
        if !pool.is_empty() {
            self.keep_chain(pool).await?;
        }
        match self.unknown(pdu.auth_events())?.first() {
            None => Ok(()),
            Some(_) if let Some(failure @ RemoteFailure::Failed { .. }) = failure => Err(failure.into()),
            Some(id) => Err(Error::MissingAuth(format!(
                "the auth event {id} of {} cannot be had",
                pdu.event_id
            ))),
        }
    }

    /// Those of some events that are not here, each once.
    pub(crate) fn unknown(&self, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, Error> {
        let mut unknown = Vec::new();
        // A state may name a million.
        let mut seen = HashSet::new();
        for id in ids {
            if self.short_of(id)?.is_none() && seen.insert(id) {
                unknown.push(id.clone());
            }
        }
        Ok(unknown)
    }

    /// Keeps the events of a chain or a state that are not here: each one is checked by itself and by its auth
    /// events. What cannot be judged is left out, with all that builds on it.
    pub(crate) async fn keep_chain(&self, events: RemoteEvents) -> Result<Kept, Error> {
        let mut kept = Kept::default();
        let mut new: BTreeMap<OwnedEventId, Pdu> = BTreeMap::new();
        let mut foreign = HashSet::new();
        for text in &events {
            let Ok(pdu) = Pdu::parse(self.rules(), text.get().as_bytes()) else {
                continue;
            };
            if pdu.room_id() != self.id() {
                // The id is a hash that covers the room; in the oldest versions anybody can say it of any event.
                if !self.rules().explicit_event_ids() {
                    foreign.insert(pdu.event_id);
                }
                continue;
            }
            if pdu.state_key().is_none() {
                continue;
            }
            kept.given.insert(pdu.event_id.clone());
            if self.short_of(&pdu.event_id)?.is_none() {
                new.insert(pdu.event_id.clone(), pdu);
            }
        }
        drop(events);
        let mut verified = BTreeMap::new();
        for outcome in self.verify(new.into_values().collect()).await? {
            match outcome {
                Ok(event) => drop(verified.insert(event.pdu.event_id.clone(), event)),
                Err(error) => {
                    if let Error::MissingKey(key) = &error {
                        self.note_missing_key(key);
                    }
                    tracing::info!(%error, room = %self.id(), "an event of a chain is left out");
                }
            }
        }
        let ordered = in_auth_order(verified);
        let mut links: HashMap<OwnedEventId, Link> = HashMap::new();
        let mut batch = Vec::new();
        let mut bytes = 0;
        for event in ordered {
            let is_foreign = |id: &OwnedEventId| foreign.contains(id);
            let rejected = match event.pdu.auth_events().iter().any(is_foreign) {
                // An event of another room authorizes nothing here, whatever the other auth events are.
                true => Some(true),
                false => self.judge_link(&event.pdu, &mut links)?,
            };
            let Some(rejected) = rejected else {
                kept.unjudged.push(event.pdu);
                continue;
            };
            bytes += event.pdu.json.len();
            links.insert(
                event.pdu.event_id.clone(),
                Link {
                    pdu: event.pdu.clone(),
                    rejected,
                },
            );
            batch.push(Outlier {
                pdu: event.pdu,
                rejected,
                redacted: event.redacted,
            });
            if bytes >= BATCH_BYTES {
                self.store_outliers(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            self.store_outliers(batch).await?;
        }
        Ok(kept)
    }

    /// Judges an event of a chain by its auth events: whether it is rejected, or none where one of them is missing.
    fn judge_link(&self, pdu: &Pdu, links: &mut HashMap<OwnedEventId, Link>) -> Result<Option<bool>, Error> {
        let mut ids: Vec<OwnedEventId> = pdu.auth_events().to_vec();
        let listed = ids.len();
        if let Some(create) = self.rules().create_event_of_room(self.id())
            && pdu.event_id != create
        {
            ids.push(create);
        }
        for id in &ids {
            if links.contains_key(id) {
                continue;
            }
            let Some(event) = self.event_by_id(id)? else {
                return Ok(None);
            };
            links.insert(
                id.clone(),
                Link {
                    pdu: event.pdu.clone(),
                    rejected: event.header.flags.has(Flags::REJECTED),
                },
            );
        }
        let found: Vec<&Link> = ids.iter().filter_map(|id| links.get(id)).collect();
        let auth: Vec<AuthEvent<'_>> = found[..listed.min(found.len())]
            .iter()
            .map(|link| AuthEvent {
                event_id: &link.pdu.event_id,
                room_id: link.pdu.room_id(),
                kind: link.pdu.kind(),
                state_key: link.pdu.state_key(),
                rejected: link.rejected,
            })
            .collect();
        let input = AuthInput::of_pdu(self.rules(), pdu);
        let passes = hearth_events::check_auth_events(self.rules(), &input, self.id(), &auth).is_ok()
            && found.iter().all(|link| !link.rejected)
            && AuthState::from_events(self.rules(), found.iter().map(|link| &link.pdu))
                .is_ok_and(|state| hearth_events::authorize(self.rules(), &input, &state).is_ok());
        Ok(Some(!passes))
    }

    pub(crate) async fn store_outliers(&self, mut outliers: Vec<Outlier>) -> Result<(), Error> {
        loop {
            match self.try_outliers(outliers) {
                Ok(Ok(staged)) => {
                    self.store(staged).await?;
                    return Ok(());
                }
                Ok(Err((again, position))) => {
                    self.wait_durable(position).await?;
                    outliers = again;
                }
                Err(error) => return Err(error),
            }
        }
    }

    #[expect(
        clippy::type_complexity,
        reason = "the events come back where they must be tried again"
    )]
    fn try_outliers(
        &self,
        outliers: Vec<Outlier>,
    ) -> Result<Result<Box<Staged>, (Vec<Outlier>, hearth_storage::Position)>, Error> {
        let mut head = self.0.head.lock();
        head.prune(self.0.rooms.log.published(self.0.shard));
        let mut staging = Staging::new(self, head);
        if let Some(barrier) = staging.barrier() {
            return Ok(Err((outliers, barrier)));
        }
        let redactions = match staging.redactions_of(&outliers) {
            Ok(redactions) => redactions,
            Err(Stop::Wait(position)) => return Ok(Err((outliers, position))),
            Err(Stop::Refuse(error)) => return Err(error),
            Err(Stop::Resolve(_) | Stop::LayOut(_)) => return Err(Error::Damaged("forward extremities")),
        };
        staging.keep_outliers(outliers, &redactions)?;
        Ok(Ok(Box::new(staging.seal(None)?)))
    }
}

/// The events so that each stands behind those of them that authorize it. What is in a circle, or behind one, is
/// left out.
fn in_auth_order(mut events: BTreeMap<OwnedEventId, Verified>) -> Vec<Verified> {
    let mut waits: HashMap<OwnedEventId, usize> = HashMap::with_capacity(events.len());
    let mut opens: HashMap<OwnedEventId, Vec<OwnedEventId>> = HashMap::new();
    let mut ready: VecDeque<OwnedEventId> = VecDeque::new();
    for (id, event) in &events {
        let auth: HashSet<&OwnedEventId> = event.pdu.auth_events().iter().collect();
        let mut count = 0;
        for needed in auth {
            if events.contains_key(needed) {
                opens.entry(needed.clone()).or_default().push(id.clone());
                count += 1;
            }
        }
        // The create event first: in some room versions nobody lists it.
        match count {
            0 if event.pdu.kind() == "m.room.create" => ready.push_front(id.clone()),
            0 => ready.push_back(id.clone()),
            count => drop(waits.insert(id.clone(), count)),
        }
    }
    let mut out = Vec::with_capacity(events.len());
    while let Some(id) = ready.pop_front() {
        for opened in opens.remove(&id).unwrap_or_default() {
            if let Some(count) = waits.get_mut(&opened) {
                *count -= 1;
                if *count == 0 {
                    ready.push_back(opened);
                }
            }
        }
        out.extend(events.remove(&id));
    }
    out
}
