//! The rooms of a user in the order of their last activity, kept in memory beside the index of positions.
//!
//! Positions of two shards cannot be compared, so activity is a time: of the last event where the order
//! is built, of the server's receiving it from then on. It never repeats, so two rooms never tie.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use hearth_rooms::{Place, Room};
use hearth_storage::{EntityKey, Position};
use hearth_users::{Change, DIRECT, Membership, RoomEntry, User};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde_json::Value;

use crate::Error;

/// What the room list says of a room.
#[derive(Clone, Debug)]
pub(crate) struct ListedRoom {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) membership: Membership,
    /// Where the entry was last changed, and where the membership began, in the user's shard.
    pub(crate) position: Position,
    pub(crate) began: Position,
    /// Where the membership began, in the room's shard.
    pub(crate) room_began: Position,
    /// The event with which it began; 0 where that was not noted.
    pub(crate) began_anchor: u64,
    pub(crate) was_joined: bool,
    pub(crate) forgotten: bool,
    /// Who sent the member event; told apart from the user for kicks, and for invitations of the ignored.
    pub(crate) sender: OwnedUserId,
    /// When the member event was sent.
    pub(crate) ts: u64,
    /// The room's number here, where this server has the room.
    pub(crate) key: Option<EntityKey>,
}

/// A room in the order.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Its number in this order.
    pub(crate) no: u32,
    pub(crate) room: Arc<ListedRoom>,
    /// When it was last active; higher is later.
    pub(crate) activity: u64,
    /// The order's count at the last change of any kind.
    pub(crate) touched: u64,
    /// The last noted change of it in the user's shard.
    pub(crate) user_last: Position,
}

impl Listed {
    /// A room as its entry has it, and the position up to which its timeline was read.
    pub(crate) fn of(entry: &RoomEntry, room: Option<&Room>, now_ms: u64) -> Result<(Self, Position), Error> {
        let (mut ts, mut read_at) = (entry.ts, entry.room_position);
        if let Some(room) = room.filter(|_| entry.membership == Membership::Join) {
            let view = room.view();
            let last = room.event_at(Place {
                anchor: view.last_n,
                offset: 0,
            })?;
            ts = last.map_or(ts, |event| event.pdu.origin_server_ts());
            read_at = room.changed_position();
        }
        let room = ListedRoom {
            room_id: entry.room_id.clone(),
            membership: entry.membership,
            position: entry.position,
            began: entry.began,
            room_began: entry.room_began,
            began_anchor: entry.began_anchor,
            was_joined: entry.was_joined,
            forgotten: entry.forgotten,
            sender: entry.sender.clone(),
            ts: entry.ts,
            key: room.map(Room::key),
        };
        let listed = Self {
            no: 0,
            room: Arc::new(room),
            // A clock of another server that is ahead does not keep a room on top.
            activity: scaled(ts.min(now_ms)),
            touched: 0,
            user_last: entry.position,
        };
        Ok((listed, read_at))
    }
}

/// Leaves room between two milliseconds for what happens within one.
fn scaled(ms: u64) -> u64 {
    ms.saturating_mul(1 << 12)
}

/// All rooms of a user.
#[derive(Default)]
pub(crate) struct RoomOrder {
    rooms: Vec<Listed>,
    by_id: HashMap<OwnedRoomId, u32>,
    by_key: HashMap<EntityKey, u32>,
    /// Which room was touched when: each stands at its last touch.
    touches: BTreeMap<u64, u32>,
    touch_count: u64,
    last_activity: u64,
    /// The rooms that are direct chats.
    direct: Arc<BTreeSet<OwnedRoomId>>,
    /// Whether they may be others by now.
    direct_is_stale: bool,
    /// Moves on when no list that was made is right any more.
    epoch: u64,
}

impl RoomOrder {
    pub(crate) fn new(direct: BTreeSet<OwnedRoomId>) -> Self {
        Self {
            direct: Arc::new(direct),
            ..Self::default()
        }
    }

    /// Adds a room while the order is built, the later active ones later; `active_ms` is when it was active, where
    /// its own time is too old.
    pub(crate) fn put(&mut self, mut listed: Listed, active_ms: Option<u64>) {
        listed.no = u32::try_from(self.rooms.len()).unwrap_or(u32::MAX);
        listed.activity = match active_ms {
            Some(ms) => self.next_activity(ms),
            None => listed.activity.max(self.last_activity + 1),
        };
        self.last_activity = listed.activity;
        let no = listed.no;
        self.by_id.insert(listed.room.room_id.clone(), no);
        self.by_key.extend(listed.room.key.map(|key| (key, no)));
        self.rooms.push(listed);
        self.touch_no(no, None);
    }

    /// Takes over what changed of a room's entry; a change of membership is activity.
    pub(crate) fn replace(&mut self, listed: Listed, now_ms: u64) {
        let Some(&no) = self.by_id.get(&listed.room.room_id) else {
            return self.put(listed, Some(now_ms));
        };
        let Some(old) = self.rooms.get_mut(no as usize) else {
            return;
        };
        let is_active = old.room.began != listed.room.began || old.room.membership != listed.room.membership;
        old.user_last = old.user_last.max(listed.user_last);
        self.by_key.extend(listed.room.key.map(|key| (key, no)));
        old.room = listed.room;
        self.touch_no(no, is_active.then_some(now_ms));
    }

    /// A joined room changed; `active_ms` is when, if it was activity.
    pub(crate) fn touch(&mut self, key: EntityKey, active_ms: Option<u64>) {
        if let Some(&no) = self.by_key.get(&key) {
            self.touch_no(no, active_ms);
        }
    }

    /// The user's own data changed. Room entries come by themselves once they are read.
    pub(crate) fn user_changed(&mut self, change: &Change, position: Position) {
        match change {
            Change::AccountData { room: Some(room), .. } => {
                if let Some(&no) = self.by_id.get(room) {
                    self.touch_no(no, None);
                    if let Some(listed) = self.rooms.get_mut(no as usize) {
                        listed.user_last = listed.user_last.max(position);
                    }
                }
            }
            Change::AccountData { room: None, kind } if kind == DIRECT => self.direct_is_stale = true,
            Change::AccountData { room: None, kind } if hearth_users::is_invite_setting(kind) => {
                self.epoch += 1;
            }
            _ => {}
        }
    }

    fn touch_no(&mut self, no: u32, active_ms: Option<u64>) {
        let activity = active_ms.map(|ms| self.next_activity(ms));
        let Some(listed) = self.rooms.get_mut(no as usize) else {
            return;
        };
        self.touch_count += 1;
        self.touches.remove(&listed.touched);
        self.touches.insert(self.touch_count, no);
        listed.touched = self.touch_count;
        listed.activity = activity.unwrap_or(listed.activity);
    }

    fn next_activity(&mut self, now_ms: u64) -> u64 {
        self.last_activity = scaled(now_ms).max(self.last_activity + 1);
        self.last_activity
    }

    /// Whether the direct chats must be read again; says so once.
    pub(crate) fn take_stale_direct(&mut self) -> bool {
        std::mem::take(&mut self.direct_is_stale)
    }

    /// Takes over which rooms are direct chats.
    pub(crate) fn set_direct(&mut self, direct: BTreeSet<OwnedRoomId>) {
        let changed: Vec<OwnedRoomId> = self.direct.symmetric_difference(&direct).cloned().collect();
        self.direct = Arc::new(direct);
        for room in changed {
            if let Some(&no) = self.by_id.get(&room) {
                self.touch_no(no, None);
            }
        }
    }

    pub(crate) fn direct(&self) -> Arc<BTreeSet<OwnedRoomId>> {
        self.direct.clone()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn touch_count(&self) -> u64 {
        self.touch_count
    }

    /// The rooms that were touched after a count.
    pub(crate) fn touched_after(&self, count: u64) -> Vec<Listed> {
        let touched = self.touches.range(count.saturating_add(1)..);
        touched
            .filter_map(|(_, no)| self.rooms.get(*no as usize).cloned())
            .collect()
    }

    /// A room by its number.
    pub(crate) fn room(&self, no: u32) -> Option<&Listed> {
        self.rooms.get(no as usize)
    }

    /// A room by its id.
    pub(crate) fn room_by_id(&self, room: &RoomId) -> Option<&Listed> {
        self.room(*self.by_id.get(room)?)
    }
}

/// The rooms that a user's `m.direct` names.
pub(crate) fn direct_rooms(user: &User) -> Result<BTreeSet<OwnedRoomId>, Error> {
    let Some(content) = user.account_data(None, DIRECT)? else {
        return Ok(BTreeSet::new());
    };
    let content: Value = serde_json::from_str(content.get()).unwrap_or_default();
    let lists = content.as_object().into_iter().flat_map(|lists| lists.values());
    let rooms = lists.filter_map(Value::as_array).flatten();
    Ok(rooms
        .filter_map(|room| OwnedRoomId::try_from(room.as_str()?).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use hearth_storage::Slot;
    use ruma::{room_id, user_id};

    use super::*;

    fn listed(room_id: &RoomId, no: u32, activity_ms: u64) -> Listed {
        let room = ListedRoom {
            room_id: room_id.to_owned(),
            membership: Membership::Join,
            position: 1,
            began: 1,
            room_began: 1,
            began_anchor: 0,
            was_joined: true,
            forgotten: false,
            sender: user_id!("@a:x").to_owned(),
            ts: activity_ms,
            key: Slot::new(1).map(|slot| EntityKey { slot, no }),
        };
        Listed {
            no: 0,
            room: Arc::new(room),
            activity: scaled(activity_ms),
            touched: 0,
            user_last: 1,
        }
    }

    #[test]
    fn activity_rises_and_touches_are_told_once() {
        let mut order = RoomOrder::new(BTreeSet::new());
        order.put(listed(room_id!("!a:x"), 1, 5_000), None);
        order.put(listed(room_id!("!b:x"), 2, 9_000), None);
        let seen = order.touch_count();
        assert!(order.touched_after(seen).is_empty());
        let key = order.room(0).and_then(|room| room.room.key).unwrap();
        // The clock may stand still, or go back: later is later.
        order.touch(key, Some(7_000));
        let first = order.room(0).unwrap().activity;
        assert!(first > order.room(1).unwrap().activity);
        order.touch(key, Some(7_000));
        assert!(order.room(0).unwrap().activity > first);
        let before = order.room(0).unwrap().activity;
        order.touch(key, None);
        assert_eq!(
            order.room(0).unwrap().activity,
            before,
            "a receipt is no activity"
        );
        let touched = order.touched_after(seen);
        assert_eq!(touched.iter().map(|room| room.no).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn only_rooms_that_became_direct_or_not_are_touched() {
        let (a, b) = (room_id!("!a:x"), room_id!("!b:x"));
        let mut order = RoomOrder::new(BTreeSet::from([a.to_owned()]));
        order.put(listed(a, 1, 1), None);
        order.put(listed(b, 2, 2), None);
        let seen = order.touch_count();
        order.set_direct(BTreeSet::from([a.to_owned(), b.to_owned()]));
        let touched = order.touched_after(seen);
        assert_eq!(touched.iter().map(|room| room.no).collect::<Vec<_>>(), [1]);
    }
}
