//! Filling in history that this server has not seen: the gaps of the timeline.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use hearth_events::Pdu;
use hearth_storage::{Family, record};
use ruma::{OwnedEventId, OwnedServerName};

use crate::{
    Error, Event, Flags, Page, Place, RemoteEvents, RemoteFailure, Room, Viewer, keys,
    staging::{Judged, Staged, Staging, Stop},
    state_tree::{NewNodes, NodeId},
};

/// How many events one request for history asks for (server-server API, `backfill`).
const BACKFILL_EVENTS: usize = 100;

/// So many events are named in one request for history: a longer address is refused by many a proxy.
const NAMED_MAX: usize = 60;

/// So many missing events are remembered of a gap, those that were named last: a server can name any number of events that
/// nobody has.
const MISSING_MAX: usize = 1_000;

/// How many servers are asked for one stretch of history.
const SERVERS_MAX: usize = 3;

/// How many stretches one page may fetch: the rest comes with the next page.
const STRETCHES_MAX: usize = 3;

/// How many stretches are fetched to reach an event that is wanted by its time.
const NEAR_STRETCHES_MAX: usize = 10;

/// What the events of one answer leave for those that follow them.
#[derive(Default)]
struct Stretch {
    /// The roots of the states after them.
    after: BTreeMap<OwnedEventId, NodeId>,
    /// Nodes of those states that are not stored yet.
    nodes: NewNodes,
}

impl Room {
    /// The place of the newest event up to `from`, and after `to`, before which events are missing.
    pub fn gap_before(&self, from: Place, to: Option<Place>) -> Result<Option<Place>, Error> {
        let prefix = keys::index(self.0.key, keys::INDEX_GAP, &[]);
        if !self.0.gaps.be(|| self.has_rows(&prefix))? {
            return Ok(None);
        }
        let row = |place: Place| [prefix.as_slice(), &keys::place_bytes(place)].concat();
        let start = match to {
            Some(to) => hearth_storage::prefix_end(&row(to)),
            None => prefix.clone(),
        };
        let end = match from {
            Place::END => hearth_storage::prefix_end(&prefix),
            from => hearth_storage::prefix_end(&row(from)),
        };
        let mut found = None;
        if start < end {
            self.reader()
                .scan(Family::RoomIndex, &start, &end, true, &mut |key, _| {
                    found = keys::read_place(&key[prefix.len()..]);
                    false
                })?;
        }
        Ok(found)
    }

    /// A page of the timeline backwards, with what other servers have of the gaps in it.
    pub async fn page_with_history(
        &self,
        from: Place,
        to: Option<Place>,
        limit: usize,
        viewer: &mut Viewer,
        keep: &(dyn Fn(&Event) -> bool + Sync),
    ) -> Result<Page, Error> {
        let mut page = Page::default();
        let mut at = from;
        // What is missing right behind the token belongs to the page: the page before ended there.
        let mut newest_gap = from.behind();
        let mut stretches = 0;
        loop {
            let gap = self.gap_before(newest_gap, to)?;
            let until = gap.map(Place::before).or(to);
            let wanted = limit - page.events.len();
            let part = self.page(at, until, true, wanted, viewer, keep)?;
            let full = part.events.len() >= wanted;
            page.events.extend(part.events);
            let Some(gap) = gap else {
                page.next = part.next;
                return Ok(page);
            };
            if full || part.next.is_some() {
                page.next = part.next.or(Some(gap.before()));
                return Ok(page);
            }
            if stretches == STRETCHES_MAX {
                page.next = Some(gap.before());
                return Ok(page);
            }
            stretches += 1;
            let filled = self.fill_gap(gap).await;
            if let Err(error) = &filled {
                tracing::info!(%error, room = %self.id(), "history cannot be had");
            }
            // Where nobody has it now, the gap stays for another time, and what is older is shown.
            at = gap.before();
            newest_gap = at;
        }
    }

    /// As [`Room::event_near`], also with what other servers have where events are missing here: an event that is
    /// nearer is fetched, with what lies between.
    pub async fn event_near_with_history(
        &self,
        timestamp_ms: u64,
        backward: bool,
        viewer: &mut Viewer,
    ) -> Result<Option<Arc<Event>>, Error> {
        let near = self.event_near(timestamp_ms, backward, viewer)?;
        if self.gap_before(Place::END, None)?.is_none() {
            return Ok(near);
        }
        let remote = self.0.rooms.remote()?.clone();
        for server in self.servers_to_ask(SERVERS_MAX) {
            let asked = remote.timestamp_to_event(&server, self.id(), timestamp_ms, !backward);
            let Ok((id, at_ms)) = asked.await else { continue };
            let is_nearer = near.as_ref().is_none_or(|near| {
                let (here, there) = (
                    near.pdu.origin_server_ts().abs_diff(timestamp_ms),
                    at_ms.abs_diff(timestamp_ms),
                );
                // Of the time that is asked for, another server may have one that is meant rather than ours.
                here > there
                    || (here == 0 && there == 0 && near.pdu.state_key().is_some() && *near.id() != id)
            });
            if !is_nearer {
                return Ok(near);
            }
            for _ in 0..NEAR_STRETCHES_MAX {
                if self.placed(&id)?.is_some() {
                    return self.event_near(timestamp_ms, backward, viewer);
                }
                match self.gap_before(Place::END, None)? {
                    Some(gap) if self.fill_gap(gap).await? => {}
                    _ => break,
                }
            }
        }
        Ok(near)
    }

    /// Fetches events that are missing before the event at a place. Says whether there is something new.
    pub async fn fill_gap(&self, gap: Place) -> Result<bool, Error> {
        let _turn = self.0.receiving.lock().await;
        let row = keys::index(self.0.key, keys::INDEX_GAP, &[&keys::place_bytes(gap)]);
        let Some(value) = self.reader().get(Family::RoomIndex, &row)? else {
            return Ok(true);
        };
        let missing: Vec<String> = record::decode(&value)?;
        let missing: Vec<OwnedEventId> = missing
            .into_iter()
            .filter_map(|id| OwnedEventId::try_from(id).ok())
            .collect();
        // One that came by itself, and soft-failed, has no place in the timeline: history goes on behind it.
        let behind = self.missing_behind_these(&missing)?;
        let mut missing = self.not_placed(&missing)?;
        missing.extend(behind);
        if missing.is_empty() {
            // They came by another way.
            self.store_history(gap, &missing, Vec::new()).await?;
            return Ok(true);
        }
        let remote = self.0.rooms.remote()?.clone();
        let mut failure = None;
        for server in self.servers_to_ask(SERVERS_MAX) {
            for named in missing.chunks(NAMED_MAX) {
                let events = match remote.backfill(&server, self.id(), named, BACKFILL_EVENTS).await {
                    Ok(events) => events,
                    Err(error @ RemoteFailure::Refused { .. }) => {
                        failure = Some(error.into());
                        continue;
                    }
                    Err(error) => {
                        failure = Some(error.into());
                        break;
                    }
                };
                let kept = self.keep_history(&server, gap, &missing, events);
                match super::in_time(&server, kept).await {
                    Ok(true) => return Ok(true),
                    Ok(false) => {}
                    Err(error) => failure = Some(error),
                }
            }
        }
        failure.map_or(Ok(false), Err)
    }

    /// Other servers in the room, those of its creators and the most powerful first where that is known.
    pub fn servers_to_ask(&self, most: usize) -> Vec<OwnedServerName> {
        let create = self.create_info();
        let own = self.0.rooms.server_name.clone();
        let mut servers: Vec<OwnedServerName> = Vec::new();
        let head = self.0.head.lock();
        let here = |server: &str| head.servers.contains_key(server);
        let creators = create.creators.iter().map(|user| user.server_name().to_owned());
        servers.extend(creators.filter(|server| *server != own && here(server.as_str())));
        let mut others: Vec<(&String, &u32)> = head.servers.iter().collect();
        others.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
        for (name, _) in others {
            if servers.len() >= most {
                break;
            }
            if let Ok(name) = OwnedServerName::try_from(name.as_str())
                && name != own
                && !servers.contains(&name)
            {
                servers.push(name);
            }
        }
        drop(head);
        // Those that the partial state does not show.
        for name in self.partial_servers() {
            if name != own && !servers.contains(&name) {
                servers.push(name);
            }
        }
        servers.truncate(most);
        servers
    }

    async fn keep_history(
        &self,
        server: &ruma::ServerName,
        gap: Place,
        missing: &[OwnedEventId],
        events: RemoteEvents,
    ) -> Result<bool, Error> {
        self.settle().await?;
        let mut new: BTreeMap<(u64, OwnedEventId), Pdu> = BTreeMap::new();
        for text in events.iter().take(BACKFILL_EVENTS) {
            let Ok(pdu) = Pdu::parse(self.rules(), text.get().as_bytes()) else {
                continue;
            };
            if pdu.room_id() == self.id() && self.placed(&pdu.event_id)?.is_none() {
                new.insert((pdu.depth(), pdu.event_id.clone()), pdu);
            }
        }
        let mut judged = Vec::new();
        let mut stretch = Stretch::default();
        for outcome in self.verify(new.into_values().collect()).await? {
            let Ok(verified) = outcome else { continue };
            match self.judge_history(server, verified, &mut stretch).await {
                Ok(event) => judged.push(event),
                Err(error) => tracing::info!(%error, "an event of the past is left out"),
            }
        }
        if judged.is_empty() {
            return Ok(false);
        }
        self.store_nodes(stretch.nodes).await?;
        self.store_history(gap, missing, judged).await?;
        Ok(true)
    }

    async fn judge_history(
        &self,
        server: &ruma::ServerName,
        verified: super::Verified,
        stretch: &mut Stretch,
    ) -> Result<Judged, Error> {
        let pdu = verified.pdu;
        self.fetch_auth(server, &pdu).await?;
        let mut roots = Vec::new();
        let mut prev = smallvec::SmallVec::new();
        let mut missing = Vec::new();
        for id in pdu.prev_events() {
            if let Some(root) = stretch.after.get(id) {
                roots.push(*root);
            } else if let Some(event) = self.placed(id)? {
                prev.push(event.short);
                roots.push(self.state_after_into(&event, &mut stretch.nodes)?);
            } else {
                missing.push(id.clone());
            }
        }
        let root = if missing.is_empty() {
            self.state_of_roots(roots, &mut stretch.nodes).await?
        } else {
            self.state_before_of(server, &pdu.event_id).await?
        };
        missing.extend(self.missing_behind(&pdu)?);
        let verdict = match self.judge_by_auth_events(&pdu)? {
            Ok(()) => self.judge_by_known_state(&pdu, root, &mut stretch.nodes).await?,
            denied => denied,
        };
        let known = self.event_by_id(&pdu.event_id)?.map(|event| event.short);
        let mut flags = Flags::default();
        if let Err(denied) = verdict {
            tracing::info!(event = %pdu.event_id, room = %self.id(), %denied, "an event of the past is rejected");
            flags.0 |= Flags::REJECTED;
        }
        if verified.redacted {
            flags.0 |= Flags::REDACTED;
        }
        let mut judged = Judged {
            known,
            prev,
            auth: self.shorts_of(pdu.auth_events())?,
            pdu,
            state_before: root,
            nodes: NewNodes::default(),
            flags,
            missing,
            replaces_tips: false,
            origin: None,
            txn: None,
        };
        // Those that follow need the state after it: it is stored at once, without a place.
        let after = self.store_unplaced(&mut judged, stretch).await?;
        stretch.after.insert(judged.pdu.event_id.clone(), after);
        Ok(judged)
    }

    /// Keeps an event as an outlier until it gets its place, and gives the root of the state after it.
    async fn store_unplaced(&self, judged: &mut Judged, stretch: &mut Stretch) -> Result<NodeId, Error> {
        if judged.pdu.state_key().is_none() || judged.flags.has(Flags::REJECTED) {
            return Ok(judged.state_before);
        }
        if judged.known.is_none() {
            let text = serde_json::from_slice(&judged.pdu.json).map_err(|_| Error::Damaged("event"))?;
            self.keep_chain(vec![text]).await?;
            self.settle().await?;
            judged.known = self.short_of(&judged.pdu.event_id)?;
        }
        let (kind, state_key) = (judged.pdu.kind(), judged.pdu.state_key().unwrap_or_default());
        // An event that is kept has its short id, and its key a number.
        let short = judged.known.ok_or(Error::Damaged("event of the past"))?;
        let key = self.state_key_short(kind, state_key)?;
        let key = key.ok_or(Error::Damaged("state key"))?;
        let store = self.nodes();
        let store = crate::state_tree::Overlay {
            base: &store,
            new: &stretch.nodes,
        };
        let mut made = NewNodes::default();
        let root = crate::state_tree::apply(&store, judged.state_before, &[(key, Some(short))], &mut made)?;
        stretch.nodes.absorb(made);
        Ok(root)
    }

    /// Puts events of the past before a place, the newest next to it. What is still missing before any of them, or
    /// before the place, is missing before the oldest one from now on: only there is room for it.
    async fn store_history(
        &self,
        gap: Place,
        missing: &[OwnedEventId],
        mut judged: Vec<Judged>,
    ) -> Result<(), Error> {
        let here: HashSet<OwnedEventId> = judged.iter().map(|event| event.pdu.event_id.clone()).collect();
        // Of an answer with rejected events alone nothing is shown: what is older than they are goes in their place.
        let all_rejected = judged.iter().all(|event| event.flags.has(Flags::REJECTED));
        let mut rest: Vec<OwnedEventId> = Vec::new();
        for event in &mut judged {
            let own = std::mem::take(&mut event.missing);
            if all_rejected || !event.flags.has(Flags::REJECTED) {
                rest.extend(own);
            }
        }
        rest.extend_from_slice(missing);
        let mut seen = HashSet::new();
        rest.retain(|id| !here.contains(id) && seen.insert(id.clone()));
        rest.truncate(MISSING_MAX);
        if let Some(oldest) = judged.iter_mut().find(|event| !event.flags.has(Flags::REJECTED)) {
            oldest.missing = std::mem::take(&mut rest);
        }
        loop {
            match self.try_history(gap, &judged, &rest) {
                Ok(staged) => {
                    self.store(staged).await?;
                    return Ok(());
                }
                Err(Stop::Wait(position)) => self.wait_durable(position).await?,
                Err(Stop::Refuse(error)) => return Err(error),
                Err(Stop::Resolve(_) | Stop::LayOut(_)) => return Err(Error::Damaged("forward extremities")),
            }
        }
    }

    fn try_history(
        &self,
        gap: Place,
        judged: &[Judged],
        still_missing: &[OwnedEventId],
    ) -> Result<Box<Staged>, Stop> {
        let mut head = self.0.head.lock();
        head.prune(self.0.rooms.log.published(self.0.shard));
        let mut staging = Staging::new(self, head);
        if let Some(barrier) = staging.barrier() {
            return Err(Stop::Wait(barrier));
        }
        staging.close_gap(gap);
        let mut place = gap.before();
        for event in judged.iter().rev() {
            staging.place_history(event, place)?;
            if !event.flags.has(Flags::REJECTED) {
                place = place.before();
            }
        }
        staging.open_gap(gap, still_missing);
        Ok(Box::new(staging.seal(None)?))
    }
}
