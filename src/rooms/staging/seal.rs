//! The end of the section under the lock, and what follows outside it: signing and the batch.

use std::{collections::HashMap, sync::Arc};

use hearth_storage::{Batch, Family, FeedItem, FeedKind, OutboxRow, Record, Ticket};
use ruma::OwnedEventId;

use super::{Body, MemberChange, StagedEvent, Staging, put_event};
use crate::{
    Change, Error, Event, Membership, Room,
    annotations::Annotation,
    event::{Place, Short},
    head::{HeadRecord, StateEntry, View},
    input::RoomNote,
    keys,
    relations::{self, Relation},
    state_tree::NewNodes,
    tail::TailRow,
};

/// An operation that is numbered, in the order of the room, and not signed yet.
pub(crate) struct Staged {
    ticket: Ticket,
    record: HeadRecord,
    view: View,
    events: Vec<StagedEvent>,
    nodes: NewNodes,
    new_keys: Vec<(String, String, u32)>,
    /// The entries of the current state that change; none where one goes.
    state: Vec<(String, String, Option<StateEntry>)>,
    /// Where the state was laid out beforehand, the entries that differ from that.
    besides_laid: Option<HashMap<(String, String), Option<StateEntry>>>,
    /// Whether the current state is another one than before.
    root_changed: bool,
    members: Vec<MemberChange>,
    replaced: Vec<Event>,
    unlinked: Vec<(Short, Place, Short, Relation)>,
    servers: Vec<(String, u32)>,
    threads: relations::ThreadRows,
    txn: Option<[u8; 16]>,
    extra: Batch,
    completes: Option<Short>,
    unannotated: Vec<Annotation>,
    began: std::time::Instant,
}

/// So many members whose membership changed without an event of theirs stand in the feed one by one.
const UNSEEN_MEMBERS_MAX: usize = 100;

/// What stands in the feed of memberships that changed though no event of theirs was added, as when the rest of a
/// partial state came, or a resolution went another way: the short ids of what is current now, or 0 for all members.
fn unseen_members(
    completes: bool,
    state: &[(String, String, Option<StateEntry>)],
    added: &[Arc<Event>],
) -> Vec<u64> {
    let mut unseen = Vec::new();
    for (kind, _, entry) in state {
        if kind != "m.room.member" {
            continue;
        }
        match entry {
            Some(entry) if added.iter().any(|event| event.short == entry.short) => {}
            Some(entry) if unseen.len() < UNSEEN_MEMBERS_MAX => unseen.push(u64::from(entry.short)),
            _ => return vec![0],
        }
    }
    match completes {
        true => vec![0],
        false => unseen,
    }
}

impl Staging<'_> {
    /// Makes the operation's head the room's head and takes the log's next position. Fails, and changes nothing, where
    /// storage cannot be read, or the room is being removed.
    pub(crate) fn seal(mut self, txn: Option<[u8; 16]>) -> Result<Staged, Error> {
        self.room.check_open()?;
        let threads = self.count_threads()?;
        let ticket = self.room.0.rooms.log.reserve(self.room.0.shard);
        let position = ticket.position();
        self.record.position = position;
        let root_changed = self.record.root != self.head.record.root;
        if root_changed || self.events.iter().any(StagedEvent::is_placed) {
            self.record.timeline_position = position;
        }
        for event in &mut self.events {
            event.header.position = position;
        }
        self.keep_auth();
        let servers = self.count_servers();
        let head = &mut *self.head;
        if root_changed {
            head.hints.root_since = position;
        }
        let parents = self.events.iter().filter_map(|event| event.relation.as_ref());
        if let Some(last) = parents.map(|(parent, _)| *parent).max() {
            self.room.0.relations.come();
            head.hints.related = head.hints.related.max(last);
        }
        head.thread_counts.extend(self.thread_counts);
        head.threads.extend(threads.after());
        let mut state = Vec::with_capacity(self.state.len());
        for (key, entry) in self.state {
            state.push((key.0.clone(), key.1.clone(), entry));
            head.pending.add_state(position, key, entry);
        }
        let mut new_keys = Vec::with_capacity(self.new_keys.len());
        for ((kind, state_key), short) in self.new_keys {
            head.pending
                .add_key(position, (kind.clone(), state_key.clone()), short);
            new_keys.push((kind, state_key, short));
        }
        let rules = self.room.0.rules;
        if rules.paired_references() {
            for event in &self.events {
                let id = event.body.event_id().clone();
                head.pending
                    .add_hash(position, id, event.body.reference_hash(rules));
            }
        }
        for (id, short) in self.ids {
            head.pending.add_id(position, id, short);
        }
        if let (Some(key), Some(last)) = (txn, self.events.last()) {
            head.pending.add_txn(position, key, last.body.event_id().clone());
        }
        for event in &self.events {
            if let Some(annotation) = event.annotation {
                let id = event.body.event_id().clone();
                head.pending.add_txn(position, annotation.pending_key(), id);
            }
        }
        // What comes next may read the replaced bytes: authorization a state event, a second redaction its target.
        if !self.replaced.is_empty() {
            head.barrier = position;
        }
        head.pending.nodes.add(position, &self.nodes);
        head.record = self.record.clone();
        let mut ticket = ticket;
        ticket.decide();
        Ok(Staged {
            ticket,
            view: head.view(),
            record: self.record,
            events: self.events,
            nodes: self.nodes,
            new_keys,
            state,
            besides_laid: self.besides_laid,
            root_changed,
            members: self.members,
            replaced: self.replaced,
            unlinked: self.unlinked,
            servers,
            threads,
            txn,
            extra: self.rows,
            completes: self.completes,
            unannotated: self.unannotated,
            began: self.began,
        })
    }

    fn count_servers(&mut self) -> Vec<(String, u32)> {
        let mut out = Vec::new();
        for (server, delta) in std::mem::take(&mut self.server_delta) {
            let before = self.head.servers.get(&server).copied().unwrap_or(0);
            let after = u32::try_from(i64::from(before) + delta).unwrap_or(0);
            if after == 0 {
                self.head.servers.remove(&server);
            } else {
                self.head.servers.insert(server.clone(), after);
            }
            if after != before {
                out.push((server, after));
            }
        }
        out
    }

    /// Counts the operation's thread replies and the redacted ones.
    fn count_threads(&self) -> Result<relations::ThreadRows, Error> {
        let mut rows = relations::ThreadRows::default();
        let room = self.room;
        let threads = &self.head.threads;
        for event in &self.events {
            if let Some((root, relation)) = &event.relation
                && relation.rel_type == "m.thread"
            {
                rows.reply(
                    room,
                    threads,
                    *root,
                    event.short,
                    event.header.place,
                    &event.sender,
                )?;
            }
        }
        for late in &self.late_replies {
            let (reply, place) = (late.reply, late.place);
            rows.reply(room, threads, late.root, reply, place, &late.sender)?;
        }
        for (root, place, short, relation) in &self.unlinked {
            if relation.rel_type == "m.thread" {
                rows.unlink(room, threads, *root, *place, *short)?;
            }
        }
        Ok(rows)
    }
}

impl StagedEvent {
    /// Whether it is a new event of the timeline.
    pub(crate) fn is_placed(&self) -> bool {
        self.header.place.anchor != 0 && self.header.place.offset == 0
    }

    fn seal(self, room: &Room) -> Event {
        let rooms = &room.0.rooms;
        let pdu = match self.body {
            Body::Unsigned(unsigned) => unsigned.sign(&rooms.signing_key, &rooms.server_name),
            Body::Signed(pdu) => pdu,
        };
        Event {
            short: self.short,
            header: self.header,
            pdu,
        }
    }
}

impl Staged {
    pub(crate) fn last_event_id(&self) -> OwnedEventId {
        self.events
            .last()
            .expect("an operation has events")
            .body
            .event_id()
            .clone()
    }

    /// Adds rows of the room's own entity to the operation's batch.
    pub(crate) fn with_rows(mut self: Box<Self>, rows: Batch) -> Box<Self> {
        self.extra.append(rows);
        self
    }

    /// Signs the events and writes the batch down.
    pub(crate) fn sign(self, room: &Room) -> (Ticket, Record) {
        let key = room.0.key;
        let position = self.ticket.position();
        let mut batch = self.extra;
        let mut added = Vec::with_capacity(self.events.len());
        let mut rows = Vec::with_capacity(self.events.len());
        let mut feed = Vec::with_capacity(self.events.len());
        let mut replaced: Vec<_> = self.replaced.into_iter().map(Arc::new).collect();
        for event in &replaced {
            put_event(&mut batch, room, event);
        }
        let last_short = self.events.last().map(|event| event.short);
        let mut outside: Option<(Short, Short)> = None;
        for mut staged in self.events {
            let (totals, known) = (staged.totals, staged.known);
            let (relation, annotation) = (staged.relation.take(), staged.annotation.take());
            let kind = std::mem::take(&mut staged.kind);
            let event = Arc::new(staged.seal(room));
            put_event(&mut batch, room, &event);
            if event.pdu.state_key().is_some() && !known {
                for cited in &event.header.auth {
                    batch.put(
                        Family::RoomIndex,
                        keys::cited(key, *cited, event.short),
                        keys::tagged(&[]),
                    );
                }
            }
            batch.put(
                Family::RoomEventId,
                keys::event_id(key, event.id()),
                keys::u32_value(event.short),
            );
            if event.header.place.anchor == 0 {
                if known {
                    replaced.push(event);
                } else {
                    outside = Some((outside.map_or(event.short, |(first, _)| first), event.short));
                }
                continue;
            }
            let value = keys::timeline_value(event.short, position, totals);
            batch.put(
                Family::RoomTimeline,
                keys::timeline(key, event.header.place),
                value,
            );
            if let Some((parent, relation)) = &relation {
                let row = keys::relation(key, *parent, event.header.place, event.short);
                batch.put(Family::RoomIndex, row, relation.row(&kind));
            }
            if let Some(annotation) = annotation {
                annotation.put(room, event.short, &mut batch);
            }
            if event.header.place.offset != 0 {
                // History is no news, but it can be searched.
                feed.push(FeedItem {
                    entity: key,
                    kind: FeedKind::RoomHistory,
                    reference: u64::from(event.short),
                });
                replaced.push(event);
                continue;
            }
            feed.push(FeedItem {
                entity: key,
                kind: FeedKind::RoomEvent,
                reference: u64::from(event.short),
            });
            rows.push(TailRow {
                anchor: event.header.place.anchor,
                short: event.short,
                position,
                totals,
            });
            added.push(event);
        }
        if let Some((first, last)) = outside {
            feed.push(FeedItem {
                entity: key,
                kind: FeedKind::RoomOutside,
                reference: (u64::from(first) << 32) | u64::from(last),
            });
        }
        if let (Some(txn), Some(last)) = (self.txn, last_short) {
            let value = keys::txn_value(last, room.0.rooms.clock.now_ms());
            batch.put(Family::RoomTxn, keys::txn(key, &txn), value);
        }
        let flat = self.record.flat.family();
        let mut put_state = |kind: &str, state_key: &str, entry: &Option<StateEntry>| {
            let row = keys::state(key, kind, state_key);
            match entry {
                Some(entry) => batch.put(flat, row, keys::state_value(*entry)),
                None => batch.delete(flat, row),
            }
        };
        match &self.besides_laid {
            Some(besides) => besides
                .iter()
                .for_each(|((kind, state_key), entry)| put_state(kind, state_key, entry)),
            None => self
                .state
                .iter()
                .for_each(|(kind, state_key, entry)| put_state(kind, state_key, entry)),
        }
        for (kind, state_key, short) in &self.new_keys {
            batch.put(
                Family::RoomStateKey,
                keys::state(key, kind, state_key),
                keys::u32_value(*short),
            );
        }
        room.nodes().put(&self.nodes, &mut batch);
        if self.root_changed {
            batch.put(
                Family::RoomStateAt,
                keys::state_at(key, position),
                keys::root_value(self.record.root),
            );
        }
        for (server, count) in &self.servers {
            let row = keys::index(key, keys::INDEX_SERVER, &[server.as_bytes()]);
            match count {
                0 => batch.delete(Family::RoomIndex, row),
                count => batch.put(Family::RoomIndex, row, keys::u32_value(*count)),
            }
        }
        for (parent, place, short, _) in &self.unlinked {
            batch.delete(Family::RoomIndex, keys::relation(key, *parent, *place, *short));
        }
        for annotation in &self.unannotated {
            annotation.delete(room, &mut batch);
        }
        self.threads.write(key, &mut batch);
        let references = unseen_members(self.completes.is_some(), &self.state, &added);
        feed.extend(references.into_iter().map(|reference| FeedItem {
            entity: key,
            kind: FeedKind::RoomState,
            reference,
        }));
        if let Some(join) = self.completes {
            // Who reads the feed sees the join once more: only now is it known whom the user shares the room with.
            feed.push(FeedItem {
                entity: key,
                kind: FeedKind::RoomEvent,
                reference: u64::from(join),
            });
            batch.delete(Family::Room, keys::room(key, keys::ROOM_PARTIAL));
            batch.put(
                Family::Room,
                keys::room(key, keys::ROOM_WHOLE),
                keys::tagged(&position.to_be_bytes()),
            );
        }
        batch.put(
            Family::Room,
            keys::room(key, keys::ROOM_HEAD),
            self.record.encode(),
        );
        let outbox = member_effects(room, &self.members, &mut batch);
        let change = Change {
            timeline: self.root_changed || !added.is_empty(),
            members: self.members,
            began: (!added.is_empty()).then_some(self.began),
            ..Change::default()
        };
        let members = self
            .state
            .into_iter()
            .filter(|(kind, ..)| kind == "m.room.member");
        let members = members.map(|(_, user, _)| user).collect();
        let note = RoomNote {
            room: room.clone(),
            view: Some(Arc::new(self.view)),
            change,
            completes: self.completes.is_some(),
            replaced,
            added,
            members,
            rows,
        };
        (
            self.ticket,
            Record {
                batch,
                feed,
                outbox,
                note: Some(Arc::new(note)),
            },
        )
    }
}

/// What changed memberships mean for the users of this server: a row of the index of local
/// members, and a message to the user's own entity.
fn member_effects(room: &Room, members: &[MemberChange], batch: &mut Batch) -> Vec<OutboxRow> {
    let mut outbox = Vec::new();
    for change in members {
        if change.user.server_name() != room.0.rooms.server_name {
            continue;
        }
        let row = keys::index(room.0.key, keys::INDEX_LOCAL_MEMBER, &[change.user.as_bytes()]);
        match change.after {
            Membership::Join => batch.put(Family::RoomIndex, row, keys::tagged(&[])),
            _ => batch.delete(Family::RoomIndex, row),
        }
        // Who has left already, through another server, is not shown as invited again until the room knows of it.
        let leaves = &room.0.rooms.own_leaves;
        if change.after != Membership::Join && leaves.have_ended(room.id(), &change.user, &change.event_id) {
            continue;
        }
        let joins = change.after == Membership::Join && change.before != Membership::Join;
        let update = hearth_users::MembershipUpdate {
            room_id: room.id().to_owned(),
            membership: change.after.of_user(),
            event_id: change.event_id.clone(),
            sender: change.sender.clone(),
            anchor: change.n,
            ts: room.0.rooms.clock.now_ms(),
            is_direct: change.is_direct,
            stripped_state: Vec::new(),
            predecessor: joins.then(|| room.create_info().predecessor.clone()).flatten(),
            via: None,
        };
        outbox.push(update.row(&change.user));
    }
    outbox
}
