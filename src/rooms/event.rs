//! An event as a room holds it: the stored bytes of the PDU and the header beside them, so that
//! filters, sync and state work never parse JSON.

use hearth_events::{Pdu, Rules, notification::Class};
use hearth_storage::Position;
use ruma::OwnedEventId;
use smallvec::SmallVec;

use crate::{
    Error,
    codec::{Cursor, put_bytes, put_varint},
    state_tree::NodeId,
};

/// The tag of the record's first encoding.
const RECORD_V1: u8 = 1;

/// The tag of the encoding that says in which thread the event is.
const RECORD_V2: u8 = 2;

/// An event's number in its room: dense from 1, outliers and rejected events included.
pub type Short = u32;

/// Facts about an event that are not in its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// The authorization rules refuse it; it is kept and never shown.
    pub const REJECTED: u16 = 1;
    /// It passed its own auth events but not the current state; kept, not shown, not built upon.
    pub const SOFT_FAILED: u16 = 2;
    /// It has no place in the timeline.
    pub const OUTLIER: u16 = 4;
    /// The stored bytes are the redacted ones.
    pub const REDACTED: u16 = 8;
    /// Of another server, and accepted through this one, which tells the others of it.
    pub const FORWARD: u16 = 16;
    /// Of this server, and handed to another one, which tells the rest of it.
    pub const HANDED_OVER: u16 = 32;

    /// Whether all bits of `flag` are set.
    pub fn has(self, flag: u16) -> bool {
        self.0 & flag == flag
    }
}

/// Where an event stands in the room's timeline: a new event is (n, 0), one that was filled in
/// before event n is (n, -1), (n, -2), and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// The sequence number, dense from 1; 0 where the event has no place.
    pub anchor: u64,
    /// 0, or negative for filled-in history.
    pub offset: i32,
}

/// Who sent a local event: the transaction id shows to the sending device only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The device's id.
    pub device: String,
    /// The client's transaction id.
    pub txn: String,
}

/// The header of a stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Rejected, soft-failed, outlier, redacted.
    pub flags: Flags,
    /// What it counts for under the default push rules.
    pub class: Class,
    /// Its place in the timeline.
    pub place: Place,
    /// The log position of the batch that gave it that place.
    pub position: Position,
    /// Root of the room state before the event.
    pub state_before: NodeId,
    /// `prev_events` as short ids.
    pub prev: SmallVec<[Short; 2]>,
    /// `auth_events` as short ids.
    pub auth: SmallVec<[Short; 4]>,
    /// The root of the thread that the event is in: by a relation of its own, or through the event it relates to.
    pub thread: Option<Short>,
    /// The event that redacted this one.
    pub redacted_by: Option<Short>,
    /// The local device that sent it, where there was a transaction id.
    pub origin: Option<Origin>,
}

/// An event of a room.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its short id.
    pub short: Short,
    /// What is known of it beside its bytes.
    pub header: Header,
    /// The event itself.
    pub pdu: Pdu,
}

impl Event {
    /// The event's id.
    pub fn id(&self) -> &ruma::EventId {
        &self.pdu.event_id
    }

    /// Whether clients may ever see it.
    pub fn is_visible_kind(&self) -> bool {
        !self.header.flags.has(Flags::REJECTED) && !self.header.flags.has(Flags::SOFT_FAILED)
    }

    /// Whether its content is gone.
    pub fn is_redacted(&self) -> bool {
        self.header.flags.has(Flags::REDACTED)
    }

    /// Bytes that a cache should count for it.
    pub fn weight(&self) -> usize {
        self.pdu.json.len() + 800
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let header = &self.header;
        let json = &self.pdu.json;
        let mut out = Vec::with_capacity(json.len() + 160);
        out.push(RECORD_V2);
        put_varint(&mut out, u64::from(header.flags.0));
        out.push(header.class.to_u8());
        put_varint(&mut out, header.place.anchor);
        put_varint(&mut out, u64::from(header.place.offset.unsigned_abs()));
        put_varint(&mut out, header.position);
        out.extend_from_slice(&header.state_before.0);
        put_shorts(&mut out, &header.prev);
        put_shorts(&mut out, &header.auth);
        put_varint(&mut out, u64::from(header.thread.unwrap_or(0)));
        put_varint(&mut out, u64::from(header.redacted_by.unwrap_or(0)));
        match &header.origin {
            None => out.push(0),
            Some(origin) => {
                out.push(1);
                put_bytes(&mut out, origin.device.as_bytes());
                put_bytes(&mut out, origin.txn.as_bytes());
            }
        }
        put_bytes(&mut out, &encode_event_id(&self.pdu.event_id));
        out.extend_from_slice(json);
        out
    }

    /// Reads a stored record.
    pub fn decode(rules: &Rules, short: Short, bytes: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, "event");
        let (header, event_id) = read_head(&mut cursor)?;
        let json = bytes::Bytes::copy_from_slice(&bytes[cursor.offset()..]);
        let pdu = Pdu::from_stored(rules, event_id, json).map_err(|_| cursor.damaged())?;
        Ok(Self { short, header, pdu })
    }

    /// The event id in a stored record, without the rest of it.
    pub(crate) fn id_of_record(bytes: &[u8]) -> Result<OwnedEventId, Error> {
        read_head(&mut Cursor::new(bytes, "event")).map(|(_, event_id)| event_id)
    }
}

/// What stands before the JSON of a stored record.
fn read_head(cursor: &mut Cursor<'_>) -> Result<(Header, OwnedEventId), Error> {
    let tag = cursor.u8()?;
    if !matches!(tag, RECORD_V1 | RECORD_V2) {
        return Err(cursor.damaged());
    }
    let flags = Flags(cursor.u32()? as u16);
    let class = Class::from_u8(cursor.u8()?);
    let anchor = cursor.varint()?;
    let offset = i32::try_from(cursor.u32()?).map_err(|_| cursor.damaged())?;
    let position = cursor.varint()?;
    let state_before = NodeId(cursor.take(16)?.try_into().map_err(|_| cursor.damaged())?);
    let prev = take_shorts(cursor)?;
    let auth = take_shorts(cursor)?;
    let thread = match tag {
        RECORD_V1 => None,
        _ => Some(cursor.u32()?).filter(|short| *short != 0),
    };
    let redacted_by = Some(cursor.u32()?).filter(|short| *short != 0);
    let origin = match cursor.u8()? {
        0 => None,
        _ => Some(Origin {
            device: cursor.str()?.to_owned(),
            txn: cursor.str()?.to_owned(),
        }),
    };
    let event_id = decode_event_id(cursor.bytes()?).ok_or_else(|| cursor.damaged())?;
    let place = Place {
        anchor,
        offset: -offset,
    };
    let header = Header {
        flags,
        class,
        place,
        position,
        state_before,
        prev,
        auth,
        thread,
        redacted_by,
        origin,
    };
    Ok((header, event_id))
}

fn put_shorts(out: &mut Vec<u8>, shorts: &[Short]) {
    put_varint(out, shorts.len() as u64);
    for short in shorts {
        put_varint(out, u64::from(*short));
    }
}

fn take_shorts<const N: usize>(cursor: &mut Cursor<'_>) -> Result<SmallVec<[Short; N]>, Error>
where
    [Short; N]: smallvec::Array<Item = Short>,
{
    let count = cursor.varint()?;
    let mut out = SmallVec::new();
    for _ in 0..count {
        out.push(cursor.u32()?);
    }
    Ok(out)
}

/// The compact key form of an event id: `0x00` and the 32 hash bytes where the id is URL-safe
/// base64 of a hash (room version 4 and later), else `0x01` and the id's text.
pub fn encode_event_id(id: &ruma::EventId) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let text = id.as_str();
    let mut out = Vec::with_capacity(1 + 33);
    if text.len() == 44 {
        out.push(0);
        if URL_SAFE_NO_PAD.decode_vec(&text[1..], &mut out).is_ok() && out.len() == 33 {
            return out;
        }
        out.clear();
    }
    out.push(1);
    out.extend_from_slice(text.as_bytes());
    out
}

/// Reads what [`encode_event_id`] wrote.
pub fn decode_event_id(bytes: &[u8]) -> Option<OwnedEventId> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let (tag, rest) = bytes.split_first()?;
    let text = match tag {
        0 => format!("${}", URL_SAFE_NO_PAD.encode(rest)),
        _ => String::from_utf8(rest.to_vec()).ok()?,
    };
    OwnedEventId::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_round_trip_compactly() {
        for (id, len) in [
            ("$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk", 45),
            ("$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg", 33),
            ("$abc:example.org", 17),
        ] {
            let id = <&ruma::EventId>::try_from(id).unwrap();
            let bytes = encode_event_id(id);
            assert_eq!(bytes.len(), len, "{id}");
            assert_eq!(decode_event_id(&bytes).unwrap(), id);
        }
    }
}
