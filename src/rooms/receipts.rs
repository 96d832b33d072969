//! Read receipts (client-server API, "Receipts"): one per user, kind and thread, durable.

use std::{collections::VecDeque, sync::Arc};

use hearth_storage::{Batch, Family, FeedItem, FeedKind, Position, Record, Ticket, record};
use ruma::{EventId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Change, Error, Event, Place, Relation, Room, input::RoomNote, keys};

/// The thread id of the main timeline.
const MAIN_THREAD: &str = "main";

/// How far relations are followed to a thread, as the specification recommends.
const RELATED_HOPS_MAX: usize = 3;

/// Whom a receipt is shown to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptKind {
    /// `m.read`: everybody in the room.
    Public,
    /// `m.read.private`: its user alone.
    Private,
}

impl ReceiptKind {
    /// The specification's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Public => "m.read",
            Self::Private => "m.read.private",
        }
    }

    /// Reads the specification's word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "m.read" => Some(Self::Public),
            "m.read.private" => Some(Self::Private),
            _ => None,
        }
    }
}

/// How far a user has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Who read.
    pub user: OwnedUserId,
    /// Whom it is shown to.
    pub kind: ReceiptKind,
    /// `main`, a thread's root, or none for an unthreaded receipt.
    pub thread: Option<String>,
    /// The last event that was read. Of a user of another server it may be one that is not known here, named in any way.
    pub event_id: String,
    /// When, in milliseconds since 1970.
    pub ts: u64,
    /// The batch that set it.
    pub position: Position,
}

#[derive(Serialize, Deserialize)]
struct ReceiptRecord {
    event_id: String,
    ts: u64,
    /// 0 where the event is not known here.
    anchor: u64,
    offset: i32,
    position: Position,
}

/// Receipts of a room that were set and that storage may not show yet, so that of two at once the newer one stays.
#[derive(Default)]
pub(crate) struct PendingReceipts(VecDeque<PendingReceipt>);

struct PendingReceipt {
    row: Vec<u8>,
    place: Place,
    ts: u64,
    position: Position,
}

/// Where a receipt stands when another is to replace it.
struct Standing {
    place: Place,
    ts: u64,
    position: Position,
}

/// What comes of setting a receipt.
enum Moved {
    /// It takes this position, in place of the one before.
    Forward(Ticket, Option<Standing>),
    /// It stands there or further on already, which counts once this position is durable.
    Not(Position),
}

impl Room {
    /// Moves a user's receipt to an event. A receipt never moves back: an older event changes
    /// nothing. The caller has checked that the user is in the room.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] where the event is not related to the thread.
    pub async fn set_receipt(
        &self,
        user: &UserId,
        kind: ReceiptKind,
        thread: Option<&str>,
        event_id: &EventId,
    ) -> Result<(), Error> {
        let now = self.0.rooms.clock.now_ms();
        self.set_receipt_of(user, kind, thread, event_id, now).await
    }

    /// As [`Room::set_receipt`], with the time at which the user read, as another server says.
    pub async fn set_receipt_of(
        &self,
        user: &UserId,
        kind: ReceiptKind,
        thread: Option<&str>,
        event_id: &EventId,
        ts: u64,
    ) -> Result<(), Error> {
        self.0.rooms.log.check_writable()?;
        self.check_open()?;
        let event = self.shown_event(event_id)?;
        let event = event.ok_or_else(|| Error::NotFound(format!("event {event_id} is not in this room")))?;
        // So there are no more receipts than threads.
        if let Some(thread) = thread
            && !self.belongs_to_thread(&event, thread)?
        {
            let sentence = format!("event {event_id} is not related to the thread {thread}");
            return Err(Error::InvalidParam(sentence));
        }
        let place = event.header.place;
        let row = keys::receipt(self.0.key, user.as_str(), kind.word(), thread.unwrap_or(""));
        self.put_receipt(row, event_id.as_str(), ts, place).await
    }

    /// As [`Room::set_receipt_of`] for a public receipt of a user of another server on an event that is not known here,
    /// as one that was sent before this server joined. Any receipt on a known event stands above it.
    pub async fn set_receipt_on_unknown(
        &self,
        user: &UserId,
        thread: Option<&str>,
        event_id: &str,
        ts: u64,
    ) -> Result<(), Error> {
        self.0.rooms.log.check_writable()?;
        self.check_open()?;
        let kind = ReceiptKind::Public.word();
        let row = keys::receipt(self.0.key, user.as_str(), kind, thread.unwrap_or(""));
        self.put_receipt(row, event_id, ts, Place::default()).await
    }

    /// Whether an event may be in a thread: what other servers say of threads is kept for those that there are.
    pub fn may_be_thread(&self, thread: &str, event_id: &str) -> Result<bool, Error> {
        if thread == "main" {
            return Ok(true);
        }
        let known = |id: &str| match <&EventId>::try_from(id) {
            Ok(id) => self.event_by_id(id),
            Err(_) => Ok(None),
        };
        if known(thread)?.is_some() {
            return Ok(true);
        }
        let event = known(event_id)?;
        let relation = event.and_then(|event| Relation::of_content(event.pdu.content()));
        Ok(relation
            .is_some_and(|relation| relation.rel_type == "m.thread" && relation.event_id.as_str() == thread))
    }

    async fn put_receipt(&self, row: Vec<u8>, event_id: &str, ts: u64, place: Place) -> Result<(), Error> {
        let (ticket, old) = match self.move_receipt(&row, place, ts)? {
            Moved::Forward(ticket, old) => (ticket, old),
            Moved::Not(position) => return self.wait_durable(position).await,
        };
        let position = ticket.position();
        let mut batch = Batch::new();
        if let Some(old) = old {
            batch.delete(
                Family::RoomReceipt,
                keys::receipt_position(self.0.key, old.position),
            );
        }
        let value = ReceiptRecord {
            event_id: event_id.to_owned(),
            ts,
            anchor: place.anchor,
            offset: place.offset,
            position,
        };
        let tail = row[6 + 1..].to_vec();
        batch.put(Family::RoomReceipt, row, record::encode(&value));
        batch.put(
            Family::RoomReceipt,
            keys::receipt_position(self.0.key, position),
            keys::tagged(&tail),
        );
        let latest = keys::room(self.0.key, keys::ROOM_RECEIPTS);
        batch.put(Family::Room, latest, keys::tagged(&position.to_be_bytes()));
        let note = RoomNote {
            room: self.clone(),
            view: None,
            change: Change {
                receipts: true,
                ..Change::default()
            },
            completes: false,
            replaced: Vec::new(),
            added: Vec::new(),
            members: Vec::new(),
            rows: Vec::new(),
        };
        let feed = vec![FeedItem {
            entity: self.0.key,
            kind: FeedKind::RoomReceipt,
            reference: position,
        }];
        let record = Record {
            batch,
            feed,
            outbox: Vec::new(),
            note: Some(Arc::new(note)),
        };
        ticket.submit(record).await?;
        Ok(())
    }

    /// Whether a receipt at an event may name a thread: `main` for what is in no thread, else the root of the thread that the
    /// event is in, or that it is or relates to itself (client-server API, "Threaded read receipts").
    pub fn belongs_to_thread(&self, event: &Event, thread: &str) -> Result<bool, Error> {
        if thread == MAIN_THREAD {
            return Ok(event.header.thread.is_none());
        }
        // Of events that were filled in, the thread is not noted; they name it themselves.
        let relation = Relation::of_content(event.pdu.content());
        if relation.is_some_and(|found| found.rel_type == "m.thread" && *found.event_id == *thread) {
            return Ok(true);
        }
        let root = match <&EventId>::try_from(thread) {
            Ok(root) => self.short_of(root)?,
            Err(_) => None,
        };
        let Some(root) = root else {
            return Ok(false);
        };
        let mut at = Some(Arc::new(event.clone()));
        for _ in 0..=RELATED_HOPS_MAX {
            let Some(event) = at else { break };
            if event.short == root || event.header.thread == Some(root) {
                return Ok(true);
            }
            at = match Relation::of_content(event.pdu.content()) {
                Some(relation) => self.event_by_id(&relation.event_id)?,
                None => None,
            };
        }
        Ok(false)
    }

    /// Takes the next position for a receipt, unless it would move back. Under a lock, and with an eye on those that
    /// are on their way: whoever reads on two devices at once has read the newer event.
    fn move_receipt(&self, row: &[u8], place: Place, ts: u64) -> Result<Moved, Error> {
        let log = &self.0.rooms.log;
        let mut pending = self.0.pending_receipts.lock();
        let published = log.published(self.0.shard);
        while pending.0.front().is_some_and(|first| first.position <= published) {
            pending.0.pop_front();
        }
        let on_its_way = pending.0.iter().rev().find(|pending| pending.row == row);
        let old = match on_its_way {
            Some(pending) => Some(Standing {
                place: pending.place,
                ts: pending.ts,
                position: pending.position,
            }),
            None => self.standing_receipt(row)?,
        };
        // Of two on events that are not known here, the later one counts.
        let stays = |old: &Standing| match place == Place::default() {
            true => old.place > place || old.ts >= ts,
            false => old.place >= place,
        };
        if old.as_ref().is_some_and(stays) {
            return Ok(Moved::Not(on_its_way.map_or(0, |pending| pending.position)));
        }
        let ticket = log.reserve(self.0.shard);
        pending.0.push_back(PendingReceipt {
            row: row.to_vec(),
            place,
            ts,
            position: ticket.position(),
        });
        Ok(Moved::Forward(ticket, old))
    }

    fn standing_receipt(&self, row: &[u8]) -> Result<Option<Standing>, Error> {
        let stored = self.reader().get(Family::RoomReceipt, row)?;
        let stored: Option<ReceiptRecord> = stored.map(|bytes| record::decode(&bytes)).transpose()?;
        Ok(stored.map(|stored| Standing {
            place: Place {
                anchor: stored.anchor,
                offset: stored.offset,
            },
            ts: stored.ts,
            position: stored.position,
        }))
    }

    /// All receipts of the room that `user` may see.
    pub fn receipts(&self, user: &UserId) -> Result<Vec<Receipt>, Error> {
        let (start, end) = keys::range(keys::receipt_prefix(self.0.key));
        let mut out = Vec::new();
        if self.receipts_position() == 0 {
            return Ok(out);
        }
        self.reader()
            .scan(Family::RoomReceipt, &start, &end, false, &mut |key, value| {
                out.extend(read(&key[start.len()..], value).filter(|receipt| shown(receipt, user)));
                true
            })?;
        Ok(out)
    }

    /// The receipts set after one log position, up to another, that `user` may see.
    pub fn receipts_between(
        &self,
        user: &UserId,
        since: Position,
        until: Position,
    ) -> Result<Vec<Receipt>, Error> {
        let mut tails: Vec<(Position, Vec<u8>)> = Vec::new();
        let start = keys::receipt_position(self.0.key, since.saturating_add(1));
        let end = keys::receipt_position(self.0.key, until.saturating_add(1));
        let skip = start.len() - 8;
        self.reader()
            .scan(Family::RoomReceipt, &start, &end, false, &mut |key, value| {
                let at = key[skip..].try_into().map(u64::from_be_bytes).unwrap_or(0);
                tails.extend(keys::untagged(value).map(|tail| (at, tail.to_vec())));
                true
            })?;
        let mut out = Vec::new();
        for (position, tail) in tails {
            let row = keys::receipt_of(self.0.key, &tail);
            let Some(value) = self.reader().get(Family::RoomReceipt, &row)? else {
                continue;
            };
            // A row whose receipt has moved on is a remnant of two writes at once, which earlier versions left.
            let found = read(&tail, &value).filter(|found| found.position == position);
            out.extend(found.filter(|receipt| shown(receipt, user)));
        }
        Ok(out)
    }

    /// One receipt of a user.
    pub fn receipt(
        &self,
        user: &UserId,
        kind: ReceiptKind,
        thread: Option<&str>,
    ) -> Result<Option<Receipt>, Error> {
        let row = keys::receipt(self.0.key, user.as_str(), kind.word(), thread.unwrap_or(""));
        let value = self.reader().get(Family::RoomReceipt, &row)?;
        Ok(value.and_then(|value| read(&row[7..], &value)))
    }
}

fn shown(receipt: &Receipt, user: &UserId) -> bool {
    receipt.kind == ReceiptKind::Public || receipt.user == user
}

/// Reads a row from the tail of its key (user, kind, thread) and its value.
fn read(tail: &[u8], value: &[u8]) -> Option<Receipt> {
    let mut parts = std::str::from_utf8(tail).ok()?.splitn(3, '\0');
    let user = OwnedUserId::try_from(parts.next()?).ok()?;
    let kind = ReceiptKind::from_word(parts.next()?)?;
    let thread = parts
        .next()
        .filter(|thread| !thread.is_empty())
        .map(str::to_owned);
    let record: ReceiptRecord = record::decode(value).ok()?;
    Some(Receipt {
        user,
        kind,
        thread,
        event_id: record.event_id,
        ts: record.ts,
        position: record.position,
    })
}
