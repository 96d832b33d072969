//! How an event of this server enters a room.
//!
//! The phases are: format (outside the lock), then, under the room's lock, transaction, gather,
//! authorize, number, hash and apply; then, outside it again, sign, store, publish, deliver.
//! Only what needs the order of events is under the lock.

use std::sync::Arc;

use hearth_events::canonical;
use hearth_storage::Position;
use ruma::{OwnedEventId, OwnedUserId, UserId};

use crate::{
    Error, Room,
    event::{Origin, Short},
    relations::Relation,
    staging::{Staged, Staging, Stop},
    together::Verdict,
};

/// What a client, or this server itself, wants to add to a room.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Who sends it; must be a user of this server.
    pub sender: OwnedUserId,
    /// The event's type.
    pub kind: String,
    /// The state key, where it is a state event.
    pub state_key: Option<String>,
    /// The content, a JSON object in any form.
    pub content: Vec<u8>,
    /// The event to redact.
    pub redacts: Option<OwnedEventId>,
    /// The time to claim, in milliseconds since 1970; only application services set it.
    pub timestamp_ms: Option<u64>,
}

impl NewEvent {
    /// A state event with content made by this server.
    pub fn state(sender: &UserId, kind: &str, state_key: &str, content: &serde_json::Value) -> Self {
        Self {
            sender: sender.to_owned(),
            kind: kind.to_owned(),
            state_key: Some(state_key.to_owned()),
            content: content.to_string().into_bytes(),
            redacts: None,
            timestamp_ms: None,
        }
    }
}

/// The device of transactions whose id is that of a delayed event (MSC4140).
pub const DELAYED_DEVICE: &str = "delayed event";

/// A client's transaction: the same one gives the same event again.
#[derive(Clone, Debug)]
pub struct Txn {
    /// The sending device.
    pub device: String,
    /// The endpoint and event type that the transaction id belongs to.
    pub scope: String,
    /// The client's transaction id.
    pub id: String,
}

impl Txn {
    /// What an event keeps of the transaction that it came by.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            device: self.device.clone(),
            txn: self.id.clone(),
        }
    }

    pub(crate) fn key(&self, user: &UserId) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        for part in [user.as_str(), &self.device, &self.scope, &self.id] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let mut out = [0; 16];
        out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        out
    }
}

/// What became of a sent event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The event's id.
    pub event_id: OwnedEventId,
    /// The batch's position in the room's shard.
    pub position: Position,
}

/// An event whose form was checked, ready for the lock.
pub(crate) struct Prepared {
    pub(crate) event: NewEvent,
    pub(crate) relation: Option<Relation>,
    pub(crate) origin: Option<Origin>,
}

/// An operation that the log has.
pub(crate) struct Submitted {
    commit: hearth_storage::Commit,
    delivers: bool,
}

/// What the section under the lock ends in.
pub(crate) enum Outcome {
    /// Numbered and on its way.
    Staged(Box<Staged>),
    /// The transaction's event exists; it counts once `1` is durable.
    Repeat(OwnedEventId, Position),
    /// Something the decision needs is not durable yet: wait for it and try again.
    Wait(Position),
    /// Refused on a head that may be ahead of the disk.
    Refused(Error, Position),
}

impl Room {
    /// Adds an event to the room; returns when it is on disk and its effects on users of this
    /// server are applied. Refusals carry the sentence of the authorization rules.
    pub async fn send(&self, event: NewEvent, txn: Option<Txn>) -> Result<Sent, Error> {
        self.0.rooms.log.check_writable()?;
        self.send_anyway(event, txn).await
    }

    /// As [`Room::send`], also where the disk is nearly full: for what helps to free it.
    pub(crate) async fn send_anyway(&self, event: NewEvent, txn: Option<Txn>) -> Result<Sent, Error> {
        if self.waits_for_policy(&event)? {
            if let Some(event_id) = self.same_state(&event)? {
                return Ok(Sent {
                    event_id,
                    position: 0,
                });
            }
            // Apart, because hardly any send goes this way and all would carry what it needs.
            return Box::pin(self.send_recommended(event, txn)).await;
        }
        let mut prepared = Box::new(self.prepare(event, txn.as_ref())?);
        let txn_key = txn.as_ref().map(|txn| txn.key(&prepared.event.sender));
        let rooms = &self.0.rooms;
        loop {
            let (verdict, position) = rooms.together.send(self, prepared, txn_key).await?;
            match verdict {
                Verdict::Submitted { event_id, delivers } => {
                    if delivers {
                        rooms.cluster.delivered(self.0.shard, position).await;
                    }
                    return Ok(Sent { event_id, position });
                }
                Verdict::Repeat(event_id, position) => {
                    self.wait_durable(position).await?;
                    return Ok(Sent { event_id, position });
                }
                Verdict::Wait(again, position) => {
                    self.wait_durable(position).await?;
                    prepared = again;
                }
                Verdict::Refused(error, position) => {
                    self.wait_durable(position).await?;
                    return Err(error);
                }
            }
        }
    }

    /// The event that a transaction made, whether or not its sender may send anything by now.
    pub async fn event_of_txn(&self, sender: &UserId, txn: &Txn) -> Result<Option<OwnedEventId>, Error> {
        let key = txn.key(sender);
        let pending = self.0.head.lock().pending.txns.get(&key).cloned();
        match pending {
            Some((position, id)) => {
                self.wait_durable(position).await?;
                Ok(Some(id))
            }
            None => self.stored_txn(&key),
        }
    }

    /// The current state event that a new one would repeat: same type, key, sender and content. A
    /// client that says the same again gets it instead of a new event.
    pub fn same_state(&self, event: &NewEvent) -> Result<Option<OwnedEventId>, Error> {
        let Some(state_key) = &event.state_key else {
            return Ok(None);
        };
        let Some(current) = self.state(&event.kind, state_key)? else {
            return Ok(None);
        };
        let content = canonical::canonicalize(&event.content, self.0.rules.strict_json())?;
        let same = current.pdu.sender() == event.sender && *current.pdu.content() == *content;
        let still_joined = self.membership(&event.sender)? == crate::Membership::Join;
        Ok((same && still_joined).then(|| current.id().to_owned()))
    }

    /// Checks what can be checked without the room's state.
    pub(crate) fn prepare(&self, mut event: NewEvent, txn: Option<&Txn>) -> Result<Prepared, Error> {
        let strict = self.0.rules.strict_json();
        event.content = canonical::canonicalize(&event.content, strict)?.into_owned();
        if event.content.first() != Some(&b'{') {
            return Err(Error::Invalid("the content is not a JSON object".to_owned()));
        }
        if let Some(state_key) = &event.state_key {
            hearth_events::check_state_key(self.0.rules, state_key)?;
        }
        self.refuse_listed_creators(&event)?;
        let relation = Relation::of_content(&event.content);
        let origin = txn.map(Txn::origin);
        Ok(Prepared {
            event,
            relation,
            origin,
        })
    }

    /// Power levels that list a creator whose power is infinite make no sense (room version 12, "Authorization
    /// rules"): said as such, and not as a lack of power.
    fn refuse_listed_creators(&self, event: &NewEvent) -> Result<(), Error> {
        let Some(create) = self.0.create.get().filter(|create| create.privileged_creators) else {
            return Ok(());
        };
        if event.kind != "m.room.power_levels" || event.state_key.as_deref() != Some("") {
            return Ok(());
        }
        let content: serde_json::Value = serde_json::from_slice(&event.content).unwrap_or_default();
        let listed = create
            .creators
            .iter()
            .find(|user| content["users"].get(user.as_str()).is_some());
        match listed {
            Some(user) => Err(Error::Invalid(format!(
                "{user} created the room, has infinite power and cannot be listed in the power levels"
            ))),
            None => Ok(()),
        }
    }

    /// The section under the lock: decides, numbers and hashes all of `events` or none.
    pub(crate) fn stage(&self, events: &[Prepared], txn: Option<[u8; 16]>) -> Outcome {
        let log = &self.0.rooms.log;
        let mut head = self.0.head.lock();
        head.prune(log.published(self.0.shard));
        let settled = head.record.position;
        if let Err(gone) = self.check_open() {
            return Outcome::Refused(gone, settled);
        }
        if let Some(key) = txn {
            if let Some((position, id)) = head.pending.txns.get(&key) {
                return Outcome::Repeat(id.clone(), *position);
            }
            match self.stored_txn(&key) {
                Ok(Some(id)) => return Outcome::Repeat(id, 0),
                Ok(None) => {}
                Err(error) => return Outcome::Refused(error, settled),
            }
        }
        let mut staging = Staging::new(self, head);
        if let Some(barrier) = staging.barrier() {
            return Outcome::Wait(barrier);
        }
        let stopped = |stop| match stop {
            Stop::Wait(position) => Outcome::Wait(position),
            // Only where there are extremities that an event of ours does not follow.
            Stop::Resolve(_) | Stop::LayOut(_) => {
                Outcome::Refused(Error::Damaged("forward extremities"), settled)
            }
            Stop::Refuse(error) => Outcome::Refused(error, settled),
        };
        // Under the lock, or two who say the same at once would both be heard.
        if let [only] = events {
            match staging.same_state(&only.event) {
                Ok(Some(id)) => return Outcome::Repeat(id, 0),
                Ok(None) => {}
                Err(stop) => return stopped(stop),
            }
        }
        for event in events {
            if let Err(stop) = staging.add(event) {
                return stopped(stop);
            }
        }
        match staging.seal(txn) {
            Ok(staged) => Outcome::Staged(Box::new(staged)),
            Err(error) => Outcome::Refused(error, settled),
        }
    }

    /// Signs, stores and publishes what was staged, and waits for its effects on others.
    pub(crate) async fn finish(&self, staged: Box<Staged>) -> Result<Sent, Error> {
        let event_id = staged.last_event_id();
        let position = self.store(staged).await?;
        Ok(Sent { event_id, position })
    }

    /// As [`Room::finish`], also of an operation that adds no event to the timeline.
    pub(crate) async fn store(&self, staged: Box<Staged>) -> Result<Position, Error> {
        self.stored(self.submit(staged)).await
    }

    /// Signs what was staged and hands it to the log. What was staged must come here without an await between, because
    /// who asked for it may go away.
    pub(crate) fn submit(&self, staged: Box<Staged>) -> Submitted {
        let (ticket, record) = staged.sign(self);
        let delivers = !record.outbox.is_empty();
        Submitted {
            commit: ticket.submit(record),
            delivers,
        }
    }

    /// Waits until what was handed to the log is durable and its effects on others are applied.
    pub(crate) async fn stored(&self, submitted: Submitted) -> Result<Position, Error> {
        let position = submitted.commit.await?;
        if submitted.delivers {
            self.0.rooms.cluster.delivered(self.0.shard, position).await;
        }
        Ok(position)
    }

    pub(crate) async fn wait_durable(&self, position: Position) -> Result<(), Error> {
        self.0.rooms.log.wait_durable(self.0.shard, position).await?;
        Ok(())
    }

    pub(crate) fn stored_txn(&self, key: &[u8; 16]) -> Result<Option<OwnedEventId>, Error> {
        let row = self.reader().get(
            hearth_storage::Family::RoomTxn,
            &crate::keys::txn(self.0.key, key),
        )?;
        let Some(row) = row else { return Ok(None) };
        let (short, _): (Short, _) = crate::keys::read_txn(&row)?;
        let event = self.event(short)?.ok_or(Error::Damaged("transaction"))?;
        Ok(Some(event.id().to_owned()))
    }
}

/// A room's readers get the new view, and the engine of `/sync` its notice, from this note.
pub(crate) struct RoomNote {
    pub(crate) room: Room,
    /// The room's new head, where the batch moved it.
    pub(crate) view: Option<Arc<crate::View>>,
    pub(crate) change: crate::Change,
    /// The room's state was partial and is whole with this batch.
    pub(crate) completes: bool,
    /// Events whose stored bytes the batch replaced.
    pub(crate) replaced: Vec<Arc<crate::Event>>,
    /// Events that the batch added.
    pub(crate) added: Vec<Arc<crate::Event>>,
    /// Users whose entries in the current state the batch changed.
    pub(crate) members: Vec<String>,
    /// The rows of the timeline of what was added.
    pub(crate) rows: Vec<crate::tail::TailRow>,
}
