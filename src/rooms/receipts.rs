//! Read receipts (client-server API, "Receipts"): one per user, kind and thread, durable.

use hearth_storage::{Batch, Family, FeedItem, FeedKind, Position, Record, record};
use ruma::{EventId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Change, Error, Place, Room, input::RoomNote, keys, relations::Relation};

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

impl ReceiptRecord {
    fn place(&self) -> Place {
        Place {
            anchor: self.anchor,
            offset: self.offset,
        }
    }
}

impl Room {
    /// Moves a user's receipt to an event. A receipt never moves back: an older event changes
    /// nothing. The caller has checked that the user is in the room.
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
        let event = self.shown_event(event_id)?;
        let event = event.ok_or_else(|| Error::NotFound(format!("event {event_id} is not in this room")))?;
        let place = event.header.place;
        let row = keys::receipt(self.0.key, user.as_str(), kind.word(), thread.unwrap_or(""));
        let old = self.receipt_record(&row)?;
        if old.as_ref().is_some_and(|old| old.place() >= place) {
            return Ok(());
        }
        self.put_receipt(row, old, event_id.as_str(), ts, place).await
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
        let kind = ReceiptKind::Public.word();
        let row = keys::receipt(self.0.key, user.as_str(), kind, thread.unwrap_or(""));
        let old = self.receipt_record(&row)?;
        let is_older = |old: &ReceiptRecord| old.place() != Place::default() || old.ts >= ts;
        if old.as_ref().is_some_and(is_older) {
            return Ok(());
        }
        self.put_receipt(row, old, event_id, ts, Place::default()).await
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

    fn receipt_record(&self, row: &[u8]) -> Result<Option<ReceiptRecord>, Error> {
        let value = self.reader().get(Family::RoomReceipt, row)?;
        Ok(value.map(|bytes| record::decode(&bytes)).transpose()?)
    }

    async fn put_receipt(
        &self,
        row: Vec<u8>,
        old: Option<ReceiptRecord>,
        event_id: &str,
        ts: u64,
        place: Place,
    ) -> Result<(), Error> {
        let ticket = self.0.rooms.log.reserve(self.0.shard);
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
            note: Some(std::sync::Arc::new(note)),
        };
        ticket.submit(record).await?;
        Ok(())
    }

    /// All receipts of the room that `user` may see.
    pub fn receipts(&self, user: &UserId) -> Result<Vec<Receipt>, Error> {
        let (start, end) = keys::range(keys::receipt_prefix(self.0.key));
        let mut out = Vec::new();
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
            // A row whose receipt has moved on is a remnant of two writes at once.
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
