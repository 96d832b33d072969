//! What a user may see since a token, as plain data: `/sync` and later renderings write it out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hearth_rooms::{Event, Place, Receipt, Room, Viewer};
use hearth_users::{KeyCounts, PresenceInfo};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::value::RawValue;

use crate::{SyncToken, lazy::SentMember};

/// The news of one user.
#[derive(Default)]
pub struct SyncView {
    /// How far this goes.
    pub next: SyncToken,
    /// The same as the client gets it.
    pub next_batch: String,
    /// News of joined rooms.
    pub joined: Vec<JoinedRoom>,
    /// New invitations.
    pub invited: Vec<StrippedRoom>,
    /// New knocks.
    pub knocked: Vec<StrippedRoom>,
    /// Rooms that were left.
    pub left: Vec<LeftRoom>,
    /// Rooms that this server is not in and whose invitation ended, or that were knocked on in vain.
    pub left_outside: Vec<LeftOutside>,
    /// Account data that changed.
    pub account_data: Vec<DataEvent>,
    /// Presence that changed.
    pub presence: Vec<(OwnedUserId, PresenceInfo)>,
    /// Messages to the device.
    pub to_device: Vec<ToDeviceEvent>,
    /// Whose devices changed.
    pub device_lists: DeviceLists,
    /// What is left of the device's one-time keys; none where no device asks.
    pub key_counts: Option<KeyCounts>,
    /// Members that are sent lazily, to be remembered for the device.
    pub(crate) members: Vec<SentMember>,
}

/// A message to a device, as JSON.
pub type ToDeviceEvent = Box<RawValue>;

/// Users whose devices the client must ask for again, or may forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceLists {
    /// Their devices or keys changed, or they came into sight.
    pub changed: BTreeSet<OwnedUserId>,
    /// They share no room with the user any more.
    pub left: BTreeSet<OwnedUserId>,
}

impl DeviceLists {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

/// News of a joined room.
pub struct JoinedRoom {
    /// The room.
    pub room: Room,
    /// The user's view of it.
    pub viewer: Viewer,
    /// Whether the client is told of the room for the first time, or again in full.
    pub initial: bool,
    /// New events.
    pub timeline: Timeline,
    /// The state that changed outside the timeline; all of it where `initial`.
    pub state: Vec<Arc<Event>>,
    /// Who types, if that changed.
    pub typing: Option<Vec<OwnedUserId>>,
    /// Receipts that changed.
    pub receipts: Vec<Receipt>,
    /// Account data of the room that changed.
    pub account_data: Vec<DataEvent>,
    /// Counts and names, where members changed.
    pub summary: Option<Summary>,
    /// What is unread: in the main timeline where threads are told apart, else in the whole room.
    pub unread: Unread,
    /// What is unread in threads, by their roots, where they are told apart.
    pub unread_threads: BTreeMap<OwnedEventId, Unread>,
    /// Whether the user's own receipts changed: then the counts may be others, whatever the filter shows.
    pub read: bool,
}

/// News of a room that the user is no longer in.
pub struct LeftRoom {
    /// The room.
    pub room: Room,
    /// The user's view of it.
    pub viewer: Viewer,
    /// Events up to the end of the stay.
    pub timeline: Timeline,
    /// The state that changed outside the timeline.
    pub state: Vec<Arc<Event>>,
    /// Account data of the room.
    pub account_data: Vec<DataEvent>,
}

/// A room that the user sees from outside.
pub struct StrippedRoom {
    /// The room.
    pub room_id: OwnedRoomId,
    /// What is shown of it.
    pub state: Vec<Box<RawValue>>,
}

/// A stretch of a timeline.
pub struct Timeline {
    /// The events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// Whether there are older ones that the client has not got.
    pub limited: bool,
    /// The gap before the first event.
    pub start: Place,
}

impl Timeline {
    /// No events, at a gap.
    pub(crate) fn empty_at(start: Place) -> Self {
        Self {
            events: Vec::new(),
            limited: false,
            start,
        }
    }

    /// Leaves no more than so many events.
    pub(crate) fn keep_newest(&mut self, max: usize) {
        let excess = self.events.len().saturating_sub(max);
        if let Some(last) = excess.checked_sub(1) {
            self.start = self.events[last].header.place;
            self.limited = true;
            self.events.drain(..excess);
        }
    }
}

/// An account data event.
pub struct DataEvent {
    /// Its type.
    pub kind: String,
    /// Its content; empty where it was deleted.
    pub content: Box<RawValue>,
}

/// A room in numbers, and the members who name it where nothing else does.
pub struct Summary {
    /// The members who name it; none where the room has a name or an alias.
    pub heroes: Option<Vec<OwnedUserId>>,
    /// How many are joined.
    pub joined: u32,
    /// How many are invited.
    pub invited: u32,
}

/// What is unread in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Events that notify.
    pub notifications: u64,
    /// Events that also highlight.
    pub highlights: u64,
}

impl From<hearth_rooms::Counts> for Unread {
    fn from(counts: hearth_rooms::Counts) -> Self {
        Self {
            notifications: counts.notifications,
            highlights: counts.highlights,
        }
    }
}

/// The end of an invitation or a knock, of a room that this server does not know.
#[derive(Debug)]
pub struct LeftOutside {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The member event, as far as it is known here.
    pub event: serde_json::Value,
}

impl JoinedRoom {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        !self.initial
            && self.timeline.events.is_empty()
            && !self.timeline.limited
            && self.state.is_empty()
            && self.typing.is_none()
            && self.receipts.is_empty()
            && self.account_data.is_empty()
            && self.summary.is_none()
            && !self.read
    }
}

impl SyncView {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty()
            && self.invited.is_empty()
            && self.knocked.is_empty()
            && self.left.is_empty()
            && self.left_outside.is_empty()
            && self.account_data.is_empty()
            && self.presence.is_empty()
            && self.to_device.is_empty()
            && self.device_lists.is_empty()
    }
}
