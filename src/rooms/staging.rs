//! The section under a room's lock: one operation's events are decided, numbered and hashed on a
//! copy of the head, which replaces the head when all of them passed.

use std::collections::HashMap;

use hearth_events::{AuthInput, Draft, Pdu, StateView, Unsigned};
use hearth_storage::Position;
use parking_lot::MutexGuard;
use ruma::{EventId, OwnedEventId, OwnedUserId, UserId};
use smallvec::SmallVec;

use crate::{
    Error, Event, Membership, Room,
    annotations::Annotation,
    event::{Flags, Header, Place, Short},
    head::{EventRef, Head, HeadRecord, StateEntry, Tip, Totals},
    input::Prepared,
    keys,
    lay::Layout,
    relations::Relation,
    state_tree::{NewNodes, NodeId},
};

mod auth;
mod count;
mod current;
mod link;
mod missing;
mod outlier;
mod place;
mod seal;

pub(crate) use outlier::{Outlier, StateOf};
pub(crate) use place::{Judged, Roots};
pub(crate) use seal::Staged;

/// How many forward extremities an event of ours cites (room versions, "prev_events").
const CITED_TIPS_MAX: usize = 20;

/// Length of the opaque part of event ids in room versions 1 and 2.
const EVENT_ID_CHARS: usize = 24;

/// Why an event cannot be staged now.
pub(crate) enum Stop {
    /// What it needs is not durable yet.
    Wait(Position),
    /// The state after several extremities is needed, whose roots these are.
    Resolve(Vec<NodeId>),
    /// So much of the state becomes another that it must be laid out first.
    LayOut(Box<Layout>),
    /// It is refused.
    Refuse(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Refuse(error.into())
    }
}

/// The event itself: one of ours is signed outside the lock, one of another server came signed.
pub(crate) enum Body {
    Unsigned(Unsigned),
    Signed(Pdu),
}

impl Body {
    pub(crate) fn event_id(&self) -> &OwnedEventId {
        match self {
            Body::Unsigned(unsigned) => &unsigned.event_id,
            Body::Signed(pdu) => &pdu.event_id,
        }
    }

    pub(crate) fn reference_hash(&self, rules: &hearth_events::Rules) -> [u8; 32] {
        match self {
            Body::Unsigned(unsigned) => unsigned.reference_hash(),
            Body::Signed(pdu) => pdu.reference_hash(rules),
        }
    }
}

/// An event that has passed, or that is kept though it has not.
pub(crate) struct StagedEvent {
    pub(crate) short: Short,
    /// The running totals with this event.
    pub(crate) totals: Totals,
    pub(crate) body: Body,
    pub(crate) header: Header,
    /// Whether the room had it as an outlier.
    pub(crate) known: bool,
    pub(crate) relation: Option<(Short, Relation)>,
    pub(crate) annotation: Option<Annotation>,
    pub(crate) kind: String,
    pub(crate) sender: OwnedUserId,
}

/// A membership that an operation changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// Whose.
    pub user: OwnedUserId,
    /// What it was.
    pub before: Membership,
    /// What it is now.
    pub after: Membership,
    /// The member event.
    pub event_id: OwnedEventId,
    /// Who made the change.
    pub sender: OwnedUserId,
    /// Whether the event says that the invitation is to a direct chat.
    pub is_direct: bool,
    /// The event's sequence number.
    pub n: u64,
}

/// A reply in a thread whose root comes after it.
pub(crate) struct LateReply {
    pub(crate) root: Short,
    pub(crate) reply: Short,
    pub(crate) place: Place,
    pub(crate) sender: OwnedUserId,
}

/// One operation on a room, while its lock is held.
pub(crate) struct Staging<'a> {
    room: &'a Room,
    head: MutexGuard<'a, Head>,
    record: HeadRecord,
    state: HashMap<(String, String), Option<StateEntry>>,
    /// Where the state was laid out beforehand, what differs from that.
    besides_laid: Option<HashMap<(String, String), Option<StateEntry>>>,
    new_keys: HashMap<(String, String), u32>,
    ids: HashMap<OwnedEventId, Short>,
    nodes: NewNodes,
    patch: auth::Patch,
    events: Vec<StagedEvent>,
    members: Vec<MemberChange>,
    replaced: Vec<Event>,
    unlinked: Vec<(Short, Place, Short, Relation)>,
    /// Replies that were here before the root of their thread.
    late_replies: Vec<LateReply>,
    server_delta: HashMap<String, i64>,
    /// Annotations whose event was redacted.
    unannotated: Vec<Annotation>,
    /// The join whose partial state becomes whole.
    completes: Option<Short>,
    /// More rows of the room.
    rows: hearth_storage::Batch,
    /// Running totals of the threads that the operation adds to.
    thread_counts: HashMap<Short, crate::unread::ThreadCount>,
    /// When the operation began.
    began: std::time::Instant,
}

impl<'a> Staging<'a> {
    pub(crate) fn new(room: &'a Room, head: MutexGuard<'a, Head>) -> Self {
        Self {
            room,
            record: head.record.clone(),
            head,
            state: HashMap::new(),
            besides_laid: None,
            new_keys: HashMap::new(),
            ids: HashMap::new(),
            nodes: NewNodes::default(),
            patch: auth::Patch::default(),
            events: Vec::new(),
            members: Vec::new(),
            replaced: Vec::new(),
            unlinked: Vec::new(),
            late_replies: Vec::new(),
            server_delta: HashMap::new(),
            unannotated: Vec::new(),
            completes: None,
            rows: hearth_storage::Batch::new(),
            thread_counts: HashMap::new(),
            began: std::time::Instant::now(),
        }
    }

    /// Decides one event and numbers it.
    pub(crate) fn add(&mut self, prepared: &Prepared) -> Result<(), Stop> {
        let event = &prepared.event;
        self.gather(event)?;
        let auth_events = self.select_auth_events(event)?;
        self.authorize(event)?;
        let redacted = match &event.redacts {
            Some(target) => self.redaction_target(&event.sender, target)?,
            None => None,
        };
        let relation = self.resolve_relation(prepared)?;
        let annotation = relation
            .as_ref()
            .and_then(|(parent, relation)| Annotation::of(*parent, relation, &event.sender, &event.kind));
        self.refuse_again(annotation)?;
        let unsigned = self.build(prepared, &auth_events)?;
        let short = self.record.last_short + 1;
        let state_before = self.record.root;
        self.apply_state(event, &unsigned, short)?;
        let cited = self.cited();
        self.number(&unsigned, short);
        match (redacted, &event.redacts) {
            (Some(target), _) => self.apply_redaction(target, short)?,
            (None, Some(target)) if self.room.event_by_id(target)?.is_none() => {
                self.wait_for(target, short);
            }
            _ => {}
        }
        let place = Place {
            anchor: self.record.last_n,
            offset: 0,
        };
        let (class, thread) = self.count(&count::Placed {
            sender: &event.sender,
            kind: &event.kind,
            state_key: event.state_key.as_deref(),
            content: &event.content,
            relation: prepared.relation.as_ref(),
            place,
            short,
        })?;
        let header = Header {
            flags: Flags::default(),
            class,
            place,
            position: 0,
            state_before,
            prev: cited,
            auth: auth_events.iter().map(|event| event.short).collect(),
            thread,
            redacted_by: None,
            origin: prepared.origin.clone(),
        };
        self.events.push(StagedEvent {
            short,
            totals: self.record.totals,
            body: Body::Unsigned(unsigned),
            header,
            known: false,
            relation,
            annotation,
            kind: event.kind.clone(),
            sender: event.sender.clone(),
        });
        Ok(())
    }

    /// What was staged last, where nothing is to become of it here.
    pub(crate) fn into_last(mut self) -> Option<Body> {
        self.events.pop().map(|event| event.body)
    }

    /// Hashes the event on top of the current extremities.
    fn build(&self, prepared: &Prepared, auth_events: &[EventRef]) -> Result<Unsigned, Stop> {
        let event = &prepared.event;
        let rooms = &self.room.0.rooms;
        let tips = self.record.tips.iter().take(CITED_TIPS_MAX);
        let depth = tips.clone().map(|tip| tip.depth).max().unwrap_or(0);
        let prev: Vec<OwnedEventId> = tips.map(|tip| tip.event.id.clone()).collect();
        let auth: Vec<OwnedEventId> = auth_events.iter().map(|event| event.id.clone()).collect();
        let is_create = event.kind == "m.room.create" && event.state_key.is_some();
        let without_id = is_create && self.room.0.rules.room_id_is_create_hash();
        let draft = Draft {
            room_id: (!without_id).then_some(&*self.room.0.id),
            sender: &event.sender,
            kind: &event.kind,
            state_key: event.state_key.as_deref(),
            content: &event.content,
            origin_server_ts: event.timestamp_ms.unwrap_or_else(|| rooms.clock.now_ms()),
            depth: self.room.0.rules.depth_after(depth),
            prev_events: &prev,
            auth_events: &auth,
            redacts: event.redacts.as_deref(),
        };
        let rules = self.room.0.rules;
        let opaque = rules
            .explicit_event_ids()
            .then(|| hearth_core::random::alphanumeric(&*rooms.random, EVENT_ID_CHARS));
        let hashes = self.reference_hashes(prev.iter().chain(&auth))?;
        let hash_of = |id: &EventId| hashes.get(id).copied();
        Ok(hearth_events::build_with_references(
            rules,
            &draft,
            opaque.as_deref(),
            &hash_of,
        )?)
    }

    /// The hashes that an event writes beside the ids that it refers to; none in room versions that do not write them.
    fn reference_hashes<'b>(
        &self,
        ids: impl Iterator<Item = &'b OwnedEventId>,
    ) -> Result<HashMap<&'b EventId, [u8; 32]>, Error> {
        let rules = self.room.0.rules;
        let mut hashes = HashMap::new();
        for id in ids.filter(|_| rules.paired_references()) {
            let staged = self.events.iter().find(|event| event.body.event_id() == id);
            let staged = staged.map(|event| event.body.reference_hash(rules));
            let pending = || self.head.pending.hashes.get(id).map(|(_, hash)| *hash);
            let found = match staged.or_else(pending) {
                None => self
                    .room
                    .event_by_id(id)?
                    .map(|event| event.pdu.reference_hash(rules)),
                found => found,
            };
            hashes.extend(found.map(|hash| (&**id, hash)));
        }
        Ok(hashes)
    }

    /// The extremities that an event of ours follows.
    fn cited(&self) -> SmallVec<[Short; 2]> {
        let tips = self.record.tips.iter().take(CITED_TIPS_MAX);
        tips.map(|tip| tip.event.short).collect()
    }

    /// Gives the event its place in the graph and in the timeline.
    fn number(&mut self, unsigned: &Unsigned, short: Short) {
        let id = unsigned.event_id.clone();
        self.record.last_short = short;
        self.record.last_n += 1;
        let cited = self.record.tips.len().min(CITED_TIPS_MAX);
        let depth = self.record.tips.iter().take(cited).map(|tip| tip.depth).max();
        let depth = self.room.0.rules.depth_after(depth.unwrap_or(0));
        self.record.depth = self.record.depth.max(depth);
        self.record.tips.drain(..cited);
        self.record.tips.insert(
            0,
            Tip {
                event: EventRef {
                    short,
                    id: id.clone(),
                },
                depth,
                root: self.record.root,
            },
        );
        self.ids.insert(id, short);
    }

    /// The event that a redaction names, if it is here and the sender may redact it.
    fn redaction_target(
        &mut self,
        sender: &UserId,
        target: &ruma::EventId,
    ) -> Result<Option<std::sync::Arc<Event>>, Stop> {
        if let Some((position, _)) = self.head.pending.ids.get(target) {
            return Err(Stop::Wait(*position));
        }
        let Some(event) = self.room.event_by_id(target)? else {
            // Another server may have it: who has it judges, and this server when it comes.
            if self.has_other_servers() {
                return Ok(None);
            }
            return Err(Error::NotFound(format!("event {target} is not in this room")).into());
        };
        let own = event.pdu.sender() == sender;
        if !own && !self.may_redact(sender)? {
            let message = "You need the power level to redact the events of others".to_owned();
            return Err(Error::Forbidden(message).into());
        }
        Ok(event.header.redacted_by.is_none().then_some(event))
    }

    fn has_other_servers(&self) -> bool {
        let own = self.room.0.rooms.server_name.as_str();
        self.head.servers.keys().any(|server| server != own)
    }

    /// Replaces the stored bytes of a redacted event.
    fn apply_redaction(&mut self, target: std::sync::Arc<Event>, by: Short) -> Result<(), Stop> {
        self.uncount(&target.header);
        let mut redacted = (*target).clone();
        redacted.pdu = hearth_events::redact(self.room.0.rules, &target.pdu)?;
        redacted.header.flags.0 |= Flags::REDACTED;
        redacted.header.redacted_by = Some(by);
        // Of what has no place nothing was noted that it says of another event.
        if target.header.place.anchor != 0
            && let Some(relation) = Relation::of_content(target.pdu.content())
            && let Some(parent) = self.short_of(&relation.event_id)?
        {
            let (sender, kind) = (target.pdu.sender(), target.pdu.kind());
            self.unannotated
                .extend(Annotation::of(parent, &relation, sender, kind));
            self.unlinked
                .push((parent, target.header.place, target.short, relation));
        }
        if let Some(state_key) = target.pdu.state_key() {
            self.patch.forget(target.pdu.kind(), state_key);
        }
        self.replaced.push(redacted);
        Ok(())
    }

    /// Refuses an annotation that is there already, and waits for one that may become durable.
    fn refuse_again(&self, annotation: Option<Annotation>) -> Result<(), Stop> {
        let Some(annotation) = annotation else {
            return Ok(());
        };
        if let Some((position, _)) = self.head.pending.txns.get(&annotation.pending_key()) {
            return Err(Stop::Wait(*position));
        }
        match annotation.exists(self.room)? {
            true => Err(Stop::Refuse(Error::DuplicateAnnotation)),
            false => Ok(()),
        }
    }

    fn resolve_relation(&self, prepared: &Prepared) -> Result<Option<(Short, Relation)>, Stop> {
        let Some(relation) = &prepared.relation else {
            return Ok(None);
        };
        if prepared.event.state_key.is_some() && relation.rel_type == "m.replace" {
            return Ok(None);
        }
        Ok(self
            .short_of(&relation.event_id)?
            .map(|parent| (parent, relation.clone())))
    }

    /// The short id of an event, staged, pending or stored.
    fn short_of(&self, id: &EventId) -> Result<Option<Short>, Error> {
        if let Some(short) = self.ids.get(id) {
            return Ok(Some(*short));
        }
        if let Some((_, short)) = self.head.pending.ids.get(id) {
            return Ok(Some(*short));
        }
        self.room.short_of(id)
    }

    /// Until when this operation must wait because stored bytes that it may read are changing.
    pub(crate) fn barrier(&self) -> Option<Position> {
        let published = self.room.0.rooms.log.published(self.room.0.shard);
        Some(self.head.barrier).filter(|barrier| *barrier > published)
    }

    fn authorize(&self, event: &crate::NewEvent) -> Result<(), Stop> {
        let tips = self.record.tips.iter().take(CITED_TIPS_MAX);
        let prev: Vec<OwnedEventId> = tips.map(|tip| tip.event.id.clone()).collect();
        let is_create = event.kind == "m.room.create" && event.state_key.is_some();
        let without_id = is_create && self.room.0.rules.room_id_is_create_hash();
        let input = AuthInput {
            sender: &event.sender,
            kind: &event.kind,
            state_key: event.state_key.as_deref(),
            content: &event.content,
            room_id: (!without_id).then_some(&*self.room.0.id),
            redacts: event.redacts.as_deref(),
            prev_events: &prev,
            event_id: None,
        };
        hearth_events::authorize(self.room.0.rules, &input, self as &dyn StateView)
            .map_err(|denied| Stop::Refuse(Error::Forbidden(denied.to_string())))
    }
}

/// The row of a stored event.
pub(crate) fn put_event(batch: &mut hearth_storage::Batch, room: &Room, event: &Event) {
    batch.put(
        hearth_storage::Family::RoomEvent,
        keys::event(room.0.key, event.short),
        event.encode(),
    );
}
