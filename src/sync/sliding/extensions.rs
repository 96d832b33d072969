//! What is told beside the rooms: messages to the device, devices, account data, receipts, who types.

use std::collections::BTreeMap;

use hearth_rooms::{Receipt, Room};
use hearth_storage::Position;
use hearth_users::{Change, KeyCounts, Membership, RoomEntry};
use ruma::{OwnedRoomId, OwnedUserId};

use super::{connection::RoomSent, order::ListedRoom, request::Extensions};
use crate::{DeviceLists, Error, ThreadsPage, ToDeviceEvent, ToDeviceToken, look::Look, view::DataEvent};

/// The receipts of a room that a client is told of where it has none yet: the newest, and its own.
const FIRST_RECEIPTS_MAX: usize = 100;

/// The news beside the rooms. What was not asked for is not there.
#[derive(Default)]
pub struct ExtensionNews {
    /// Messages to the device, and where to go on.
    pub to_device: Option<(Vec<ToDeviceEvent>, ToDeviceToken)>,
    /// Whose devices changed, and what is left of the device's own keys.
    pub e2ee: Option<(DeviceLists, KeyCounts)>,
    /// Global account data.
    pub global: Vec<DataEvent>,
    /// Account data of rooms.
    pub data: BTreeMap<OwnedRoomId, Vec<DataEvent>>,
    /// Receipts.
    pub receipts: BTreeMap<OwnedRoomId, Vec<Receipt>>,
    /// Who types.
    pub typing: BTreeMap<OwnedRoomId, Vec<OwnedUserId>>,
    /// Changes of subscriptions to threads.
    pub threads: ThreadsPage,
}

impl ExtensionNews {
    /// Whether there is nothing that a client waits for.
    pub(super) fn is_empty(&self) -> bool {
        self.to_device
            .as_ref()
            .is_none_or(|(events, _)| events.is_empty())
            && self.e2ee.as_ref().is_none_or(|(lists, _)| lists.is_empty())
            && self.global.is_empty()
            && self.data.is_empty()
            && self.receipts.is_empty()
            && self.typing.is_empty()
            && self.threads.threads.is_empty()
    }

    /// Reads what is not of single rooms: global account data after `global`, all where there is none; device lists
    /// where the client follows them.
    pub(super) fn read_global(
        &mut self,
        look: &Look<'_>,
        asked: &Extensions,
        global: Option<Position>,
        e2ee: bool,
    ) -> Result<(), Error> {
        let own = OwnNews::read(look, asked.account_data.as_ref().and(global))?;
        if asked.account_data.is_some() {
            self.global = match global {
                Some(_) => own.global,
                None => crate::account_data::all_global(&look.request.user)?,
            };
        }
        if let Some(device) = look.request.device.as_ref().filter(|_| asked.e2ee) {
            let lists = match e2ee {
                true => look.device_lists(own.devices, &own.gone)?,
                false => DeviceLists::default(),
            };
            self.e2ee = Some((lists, look.request.user.key_counts(device)?));
        }
        Ok(())
    }

    /// Reads subscriptions to threads after `since`; all where there is none.
    pub(super) fn read_threads(
        &mut self,
        look: &Look<'_>,
        asked: &Extensions,
        since: Option<Position>,
    ) -> Result<(), Error> {
        if let Some(wanted) = asked.threads {
            let user = &look.request.user;
            self.threads = ThreadsPage::news(user, since, look.user_position, wanted.limit)?;
        }
        Ok(())
    }

    /// Reads what is of one room, as far as the room is in the extensions' scopes. Notes in `sent` what will have
    /// been sent. Says whether there was anything.
    pub(super) fn read_room(
        &mut self,
        look: &Look<'_>,
        entry: &ListedRoom,
        scopes: Scopes,
        sent: &mut RoomSent,
    ) -> Result<bool, Error> {
        let mut any = false;
        if scopes.data {
            let data = room_data(look, entry, sent)?;
            if !data.is_empty() {
                any = true;
                self.data.insert(entry.room_id.clone(), data);
            }
        }
        if entry.membership != Membership::Join || !(scopes.receipts || scopes.typing) {
            return Ok(any);
        }
        let Some(room) = look.engine.rooms.get(&entry.room_id)? else {
            return Ok(any);
        };
        if scopes.receipts {
            let receipts = receipts(look, &room, sent)?;
            if !receipts.is_empty() {
                any = true;
                self.receipts.insert(entry.room_id.clone(), receipts);
            }
        }
        if scopes.typing {
            let (mut users, _) = room.typing();
            users.retain(|user| !look.ignored.contains(user));
            let number = typing_number(&users);
            if number != sent.typing {
                sent.typing = number;
                any = true;
                self.typing.insert(entry.room_id.clone(), users);
            }
        }
        Ok(any)
    }
}

/// In which extensions' scopes a room is.
#[derive(Clone, Copy)]
pub(super) struct Scopes {
    pub(super) data: bool,
    pub(super) receipts: bool,
    pub(super) typing: bool,
}

/// What changed in the user's own shard.
#[derive(Default)]
struct OwnNews {
    global: Vec<DataEvent>,
    devices: bool,
    /// Rooms that were left.
    gone: Vec<OwnedRoomId>,
}

impl OwnNews {
    /// Reads the changes since the answer before; global account data since `data_since`, if they are wanted.
    fn read(look: &Look<'_>, data_since: Option<u64>) -> Result<Self, Error> {
        let mut news = Self::default();
        let Some(since) = look.since.map(|since| since.user) else {
            return Ok(news);
        };
        let user = look.request.user.now();
        let first = data_since.unwrap_or(since).min(since);
        for (position, change) in look.changes_after(first)? {
            match change {
                Change::AccountData { room: None, kind }
                    if data_since.is_some_and(|since| position > since) =>
                {
                    let data = user.account_data(None, &kind)?;
                    let data = data.map(|data| crate::account_data::event(&look.request.user, data));
                    news.global.extend(data.transpose()?);
                }
                Change::DeviceList => news.devices |= position > since,
                Change::Room(room) => {
                    let entry = user.room(&room)?;
                    news.gone
                        .extend(entry.filter(|entry| is_gone(entry, since)).map(|_| room));
                }
                _ => {}
            }
        }
        Ok(news)
    }
}

fn is_gone(entry: &RoomEntry, since: u64) -> bool {
    let is_out = matches!(entry.membership, Membership::Leave | Membership::Ban);
    is_out && entry.was_joined && entry.began > since
}

/// Messages to the device.
#[derive(Default)]
pub(super) struct Messages {
    pub(super) page: Option<(Vec<ToDeviceEvent>, ToDeviceToken)>,
    /// Whether more wait than an answer holds: then the rooms wait too, so that no event comes before the key that it
    /// needs.
    pub(super) hold_rooms: bool,
}

/// The messages to the device that came after what it has, oldest first. `is_first` is said of a connection's first answer.
pub(super) fn messages(look: &Look<'_>, asked: &Extensions, is_first: bool) -> Result<Messages, Error> {
    let (Some(device), Some(wanted)) = (&look.request.device, &asked.to_device) else {
        return Ok(Messages::default());
    };
    let since = match &wanted.since {
        Some(since) => ToDeviceToken::parse(since)?.0,
        None => 0,
    };
    let most = hearth_core::limits::TO_DEVICE_PAGE_MAX_MESSAGES;
    let limit = wanted.limit.unwrap_or(most).clamp(1, most);
    let found = look
        .request
        .user
        .to_device_between(device, since, look.user_position, limit)?;
    let reached = match found.last() {
        Some((last, _)) if found.len() >= limit => *last,
        // A position that is beyond what this start knows stays what it is.
        _ => look.user_position.max(since),
    };
    let more = found.len() >= limit
        && !look
            .request
            .user
            .to_device_between(device, reached, look.user_position, 1)?
            .is_empty();
    let events = found.into_iter().map(|(_, event)| event).collect();
    // Not for a client that does not say what it has got: its rooms would wait for ever. In the first answer that is not
    // known yet; messages to a device without keys unlock nothing.
    let goes_on = wanted.since.is_some() || (is_first && look.request.user.has_device_keys(device)?);
    Ok(Messages {
        page: Some((events, ToDeviceToken(reached))),
        hold_rooms: more && goes_on,
    })
}

fn room_data(look: &Look<'_>, entry: &ListedRoom, sent: &mut RoomSent) -> Result<Vec<DataEvent>, Error> {
    let user = &look.request.user;
    let first = sent.data.is_none();
    let since = sent.data.unwrap_or(0);
    if !first && !look.index.state.lock().own.may_be_after(since) {
        sent.data = Some(look.user_position);
        return Ok(Vec::new());
    }
    let mut found = user.now().room_data_after(&entry.room_id, since)?;
    found.retain(|data| data.position <= look.user_position && !(first && data.deleted));
    sent.data = Some(look.user_position);
    found
        .into_iter()
        .map(|data| crate::account_data::event(user, data))
        .collect()
}

fn receipts(look: &Look<'_>, room: &Room, sent: &mut RoomSent) -> Result<Vec<Receipt>, Error> {
    let user = look.request.user.id();
    let until = look.until(room.shard());
    let before = sent.receipts.replace(until);
    let mut receipts = match before {
        Some(before) if room.receipts_position() <= before => return Ok(Vec::new()),
        Some(before) => room.receipts_between(user, before, until)?,
        None => {
            let mut all = room.receipts(user)?;
            all.sort_by_key(|receipt| std::cmp::Reverse((receipt.user == *user, receipt.position)));
            all.truncate(FIRST_RECEIPTS_MAX);
            all
        }
    };
    receipts.retain(|receipt| !look.ignored.contains(&receipt.user));
    // One event tells of a room, and has each user once at an event: the unthreaded receipt counts there (MSC4102).
    receipts.sort_by_key(|receipt| receipt.thread.is_some());
    Ok(receipts)
}

fn typing_number(users: &[OwnedUserId]) -> u64 {
    if users.is_empty() {
        return 0;
    }
    let names: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    super::number_of(&names.join(" ")).max(1)
}
