//! One look at a user's news: the joined rooms that may have some, and what the answer is made of.

use std::{
    cell::{Cell, OnceCell},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hearth_rooms::{PushRules, Room, Unread, Viewer};
use hearth_storage::{Position, ShardId};
use ruma::{OwnedRoomId, OwnedUserId};

use crate::{
    Error, SyncEngine, SyncRequest, SyncToken, SyncView, index::JoinedEntry, notifier::IndexGuard,
    view::DataEvent,
};

/// One look at the user's news.
pub(crate) struct Look<'a> {
    pub(crate) engine: &'a SyncEngine,
    pub(crate) request: &'a SyncRequest,
    /// What the client has seen; nothing where the first sync is not over.
    pub(crate) since: Option<&'a SyncToken>,
    pub(crate) index: &'a IndexGuard,
    /// The positions up to which rooms are read.
    pub(crate) positions: Vec<(ShardId, Position)>,
    /// The position up to which the user's own shard is read.
    pub(crate) user_position: Position,
    /// How far the messages to the device go, where that is less far.
    pub(crate) messages: Option<Position>,
    pub(crate) ignored: Arc<BTreeSet<OwnedUserId>>,
    /// The user's push rules, once a room asked for them.
    pub(crate) rules: OnceCell<Arc<PushRules>>,
    /// How many events the answer has so far.
    pub(crate) events: Cell<usize>,
}

impl Look<'_> {
    /// Notes that the answer is to have so many more events, before they are read.
    pub(crate) fn weigh(&self, more: usize) -> Result<(), Error> {
        let events = self.events.get().saturating_add(more);
        self.events.set(events);
        match events <= self.request.events_max {
            true => Ok(()),
            false => Err(Error::Large),
        }
    }

    /// The position up to which rooms of a shard are read.
    pub(crate) fn until(&self, shard: ShardId) -> Position {
        self.positions
            .iter()
            .find(|(one, _)| *one == shard)
            .map_or(0, |(_, position)| *position)
    }

    /// What the client has seen of the user's own shard.
    pub(crate) fn user_since(&self) -> Position {
        self.since.map_or(0, |since| since.user)
    }

    /// Whether the client has been told that the user is joined to a room.
    pub(crate) fn knows_joined(&self, entry: &JoinedEntry) -> bool {
        self.since
            .is_some_and(|since| entry.began <= since.user && entry.room_began <= since.shard(entry.shard))
    }

    /// What is told, but for messages to the device.
    pub(crate) fn view(&self) -> Result<SyncView, Error> {
        let (typing_count, shards) = {
            let state = self.index.state.lock();
            (state.typing_count(), state.shards().collect::<Vec<_>>())
        };
        let presence = self.engine.users.presence().counter();
        let mut view = SyncView {
            next: SyncToken {
                shards: shards
                    .into_iter()
                    .map(|shard| (shard, self.until(shard)))
                    .collect(),
                user: self.user_position,
                ephemeral: (self.index.start, typing_count),
                presence: (presence.start, presence.value),
                messages: self.messages,
            },
            ..SyncView::default()
        };
        let mut own = self.own_news()?;
        view.account_data = std::mem::take(&mut own.global);
        view.device_lists = self.device_lists(own.devices, &own.gone(self.user_since()))?;
        for entry in std::mem::take(&mut own.entries) {
            self.entry_news(&entry, &mut own.of_rooms, &mut view)?;
        }
        for entry in self.candidates(&own.of_rooms) {
            let account_data = own.of_rooms.remove(&entry.room_id).unwrap_or_default();
            if let Some(room) = self.joined_room(&entry, account_data, &mut view.members)? {
                view.joined.push(room);
            }
        }
        self.presence_news(&mut view)?;
        Ok(view)
    }

    /// The joined rooms that may have news, in the order of their ids.
    fn candidates(&self, with_data: &BTreeMap<OwnedRoomId, Vec<DataEvent>>) -> Vec<JoinedEntry> {
        let filter = &self.request.filter.room;
        let state = self.index.state.lock();
        let mut found: BTreeMap<OwnedRoomId, JoinedEntry> = BTreeMap::new();
        let mut add = |entry: JoinedEntry| {
            if filter.has_room(&entry.room_id) {
                found.insert(entry.room_id.clone(), entry);
            }
        };
        match self.since.filter(|_| !self.request.full_state) {
            None => state.rooms().cloned().for_each(&mut add),
            Some(since) => {
                state
                    .changed_rooms(|shard| since.shard(shard))
                    .into_iter()
                    .for_each(&mut add);
                state
                    .changed_typing(self.typing_since())
                    .into_iter()
                    .for_each(&mut add);
                with_data
                    .keys()
                    .filter_map(|id| state.room(id))
                    .cloned()
                    .for_each(&mut add);
                state.begun_after(since.user).into_iter().for_each(&mut add);
            }
        }
        found.into_values().collect()
    }

    /// The count of typing that the client has seen; 0 where it saw another index.
    pub(crate) fn typing_since(&self) -> u64 {
        self.since
            .map(|since| since.ephemeral)
            .filter(|(start, _)| *start == self.index.start)
            .map_or(0, |(_, count)| count)
    }

    /// What is unread in a room that the user is joined to: since an event, where that was noted, and a position.
    pub(crate) fn unread(&self, room: &Room, began: (u64, Position)) -> Result<Unread, Error> {
        let user = &self.request.user;
        let rules = match self.rules.get() {
            Some(rules) => rules,
            None => {
                let read = user.rules()?;
                self.rules.get_or_init(|| read)
            }
        };
        Ok(room.unread_since(user, began, rules, &self.ignored)?)
    }

    /// Whether an event is one that the user does not want to see: state events of ignored users
    /// still count.
    pub(crate) fn is_ignored(&self, event: &hearth_rooms::Event) -> bool {
        event.pdu.state_key().is_none() && self.ignored.contains(event.pdu.sender())
    }

    pub(crate) fn viewer(&self, room: &hearth_rooms::Room) -> Result<Viewer, Error> {
        Ok(room
            .viewer(self.request.user.id())?
            .ignoring(self.ignored.clone()))
    }
}
