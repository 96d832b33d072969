//! The stored part of a room's head.

use hearth_storage::{Family, Position};
use ruma::OwnedEventId;
use smallvec::SmallVec;

use crate::{
    Error,
    codec::{Cursor, put_bytes, put_varint},
    event::{Short, decode_event_id, encode_event_id},
    state_tree::NodeId,
};

/// The tag of the head record's first encoding.
const HEAD_V1: u8 = 1;

/// The tag of the encoding in which each forward extremity has the root of the state after it.
const HEAD_V2: u8 = 2;

/// The tag of the encoding in which the totals of threads stand apart.
const HEAD_V3: u8 = 3;

/// The tag of the encoding that says where the current state stands flat.
const HEAD_V4: u8 = 4;

/// An event that later events cite: a forward extremity, or a member of the auth state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventRef {
    pub(crate) short: Short,
    pub(crate) id: OwnedEventId,
}

/// A forward extremity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) event: EventRef,
    pub(crate) depth: u64,
    /// Root of the state after it.
    pub(crate) root: NodeId,
}

/// Running totals of a timeline: the unread count is the difference of two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) notify: u32,
    pub(crate) highlight: u32,
    /// The part of `notify` that is in threads.
    pub(crate) thread_notify: u32,
    /// The part of `highlight` that is in threads.
    pub(crate) thread_highlight: u32,
    /// How many members were joined after the event: push rules ask. 0 where it was not noted.
    pub(crate) joined: u32,
}

impl Totals {
    pub(crate) fn add(&mut self, class: hearth_events::notification::Class, in_thread: bool) {
        self.notify += u32::from(class.notify);
        self.highlight += u32::from(class.highlight);
        if in_thread {
            self.thread_notify += u32::from(class.notify);
            self.thread_highlight += u32::from(class.highlight);
        }
    }
}

/// In which of two families the current state of a room stands flat. A state that is exchanged as a whole, as that of a
/// large room which is joined, is laid out in the other one, where nobody reads it, before it becomes the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flat {
    #[default]
    First = 0,
    Second = 1,
}

impl Flat {
    pub(crate) fn other(self) -> Self {
        match self {
            Flat::First => Flat::Second,
            Flat::Second => Flat::First,
        }
    }

    pub(crate) fn family(self) -> Family {
        match self {
            Flat::First => Family::RoomState,
            Flat::Second => Family::RoomStateOther,
        }
    }
}

/// The stored part of the writer's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadRecord {
    /// The greatest short id given out.
    pub(crate) last_short: Short,
    /// The greatest short state key given out.
    pub(crate) last_state_key: u32,
    /// The greatest sequence number given out.
    pub(crate) last_n: u64,
    /// The greatest depth of any event.
    pub(crate) depth: u64,
    /// Position of the last batch that changed the room.
    pub(crate) position: Position,
    /// Position of the last batch that added to the timeline.
    pub(crate) timeline_position: Position,
    /// How many events of the timeline notify, and how many highlight, under the default push rules.
    pub(crate) totals: Totals,
    /// Root of the current state.
    pub(crate) root: NodeId,
    /// Where it stands flat.
    pub(crate) flat: Flat,
    /// Joined and invited members.
    pub(crate) joined: u32,
    pub(crate) invited: u32,
    /// The forward extremities.
    pub(crate) tips: SmallVec<[Tip; 2]>,
}

impl Default for HeadRecord {
    fn default() -> Self {
        Self {
            last_short: 0,
            last_state_key: 0,
            last_n: 0,
            depth: 0,
            position: 0,
            timeline_position: 0,
            totals: Totals::default(),
            root: NodeId::EMPTY,
            flat: Flat::First,
            joined: 0,
            invited: 0,
            tips: SmallVec::new(),
        }
    }
}

impl HeadRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(100);
        out.push(HEAD_V4);
        for value in [
            u64::from(self.last_short),
            u64::from(self.last_state_key),
            self.last_n,
            self.depth,
            self.position,
            self.timeline_position,
            u64::from(self.joined),
            u64::from(self.invited),
            u64::from(self.totals.notify),
            u64::from(self.totals.highlight),
            u64::from(self.totals.thread_notify),
            u64::from(self.totals.thread_highlight),
            self.tips.len() as u64,
        ] {
            put_varint(&mut out, value);
        }
        out.push(self.flat as u8);
        out.extend_from_slice(&self.root.0);
        for tip in &self.tips {
            put_varint(&mut out, u64::from(tip.event.short));
            put_varint(&mut out, tip.depth);
            put_bytes(&mut out, &encode_event_id(&tip.event.id));
            out.extend_from_slice(&tip.root.0);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, "room head");
        let tag = cursor.u8()?;
        if !matches!(tag, HEAD_V1 | HEAD_V2 | HEAD_V3 | HEAD_V4) {
            return Err(cursor.damaged());
        }
        let mut head = HeadRecord {
            last_short: cursor.u32()?,
            last_state_key: cursor.u32()?,
            last_n: cursor.varint()?,
            depth: cursor.varint()?,
            position: cursor.varint()?,
            timeline_position: cursor.varint()?,
            joined: cursor.u32()?,
            invited: cursor.u32()?,
            totals: Totals {
                notify: cursor.u32()?,
                highlight: cursor.u32()?,
                ..Totals::default()
            },
            ..HeadRecord::default()
        };
        head.totals.joined = head.joined;
        if matches!(tag, HEAD_V3 | HEAD_V4) {
            head.totals.thread_notify = cursor.u32()?;
            head.totals.thread_highlight = cursor.u32()?;
        }
        let tips = cursor.varint()?;
        if tag == HEAD_V4 && cursor.u8()? != Flat::First as u8 {
            head.flat = Flat::Second;
        }
        head.root = NodeId(cursor.take(16)?.try_into().map_err(|_| cursor.damaged())?);
        for _ in 0..tips {
            let short = cursor.u32()?;
            let depth = cursor.varint()?;
            let id = decode_event_id(cursor.bytes()?).ok_or_else(|| cursor.damaged())?;
            // Rooms of the first encoding have one extremity, and the state after it is the current one.
            let root = match tag {
                HEAD_V1 => head.root,
                _ => NodeId(cursor.take(16)?.try_into().map_err(|_| cursor.damaged())?),
            };
            head.tips.push(Tip {
                event: EventRef { short, id },
                depth,
                root,
            });
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_record_round_trips() {
        let id = OwnedEventId::try_from("$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg").unwrap();
        let head = HeadRecord {
            last_short: 9,
            last_state_key: 7,
            last_n: 300,
            depth: 301,
            position: 12345,
            timeline_position: 12344,
            totals: Totals {
                notify: 200,
                highlight: 2,
                thread_notify: 20,
                thread_highlight: 1,
                joined: 3,
            },
            root: NodeId([7; 16]),
            flat: Flat::Second,
            joined: 3,
            invited: 1,
            tips: SmallVec::from_vec(vec![Tip {
                event: EventRef { short: 9, id },
                depth: 301,
                root: NodeId([8; 16]),
            }]),
        };
        let bytes = head.encode();
        assert_eq!(HeadRecord::decode(&bytes).unwrap(), head);
        for cut in 0..bytes.len() {
            assert!(HeadRecord::decode(&bytes[..cut]).is_err());
        }
    }
}
