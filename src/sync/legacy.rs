//! Renderings for the endpoints that the specification has deprecated and old clients still call:
//! `/events`, `/initialSync` and `rooms/{roomId}/initialSync`.

use hearth_rooms::{Membership, Place, Receipt, Rendering, Room, Rooms, Visibility};
use hearth_users::{PresenceInfo, User};
use ruma::{DeviceId, RoomId, UserId};
use serde_json::{Value, json};

use crate::{
    BatchToken, Error, SyncEngine, SyncRequest, SyncView,
    v3::{data_event, presence_event, receipt_contents},
};

/// `/events`: the news as one list.
pub fn events(request: &SyncRequest, since: &str, view: &mut SyncView) -> Result<Value, Error> {
    let mut chunk: Vec<Value> = Vec::new();
    let device = request.device.as_ref().map(|device| device.as_str());
    let rendering = Rendering {
        device,
        ..Rendering::default()
    };
    for room in &mut view.joined {
        let id = room.room.id().to_owned();
        if room.initial
            && let Some(own) = room.room.state("m.room.member", request.user.id().as_str())?
        {
            // Of a room that is new to the user, what came before is no news.
            let began = own.header.place;
            room.timeline.events.retain(|event| event.header.place >= began);
        }
        for event in room
            .room
            .render_all(&room.timeline.events, &mut room.viewer, &rendering)?
        {
            chunk.push(serde_json::from_str(event.get())?);
        }
        if let Some(users) = &room.typing {
            chunk.push(json!({ "type": "m.typing", "room_id": id, "content": { "user_ids": users } }));
        }
        chunk.extend(receipt_events(&id, &room.receipts));
    }
    for room in &mut view.left {
        for event in room
            .room
            .render_all(&room.timeline.events, &mut room.viewer, &rendering)?
        {
            chunk.push(serde_json::from_str(event.get())?);
        }
    }
    for room in &view.invited {
        for event in &room.state {
            let mut event: Value = serde_json::from_str(event.get())?;
            event["room_id"] = json!(room.room_id);
            chunk.push(event);
        }
    }
    chunk.extend(view.presence.iter().map(|(user, info)| presence_of(user, info)));
    Ok(json!({ "start": since, "end": view.next_batch, "chunk": chunk }))
}

/// `/initialSync`: the whole account as an initial sync shows it.
pub fn initial(rooms: &Rooms, request: &SyncRequest, view: &mut SyncView) -> Result<Value, Error> {
    let mut list = Vec::new();
    let end = view.next_batch.clone();
    for news in &mut view.joined {
        let device = request.device.as_deref();
        let start = BatchToken::from(news.timeline.start).to_string();
        let mut room = snapshot(
            rooms,
            &request.user,
            device,
            &news.room,
            &news.timeline.events,
            start,
            end.clone(),
        )?;
        room["membership"] = json!("join");
        list.push(room);
    }
    if request.filter.room.include_leave {
        for news in &mut view.left {
            let membership = news.viewer.membership();
            let start = BatchToken::from(news.timeline.start).to_string();
            let until = news
                .viewer
                .left()
                .map_or(end.clone(), |left| BatchToken::from(left).to_string());
            let device = request.device.as_deref();
            let events = &news.timeline.events;
            let mut room = snapshot(rooms, &request.user, device, &news.room, events, start, until)?;
            room["membership"] = json!(membership.word());
            list.push(room);
        }
    }
    for invited in &view.invited {
        let state = values(invited.state.iter().map(|event| event.get()));
        list.push(
            json!({ "room_id": invited.room_id, "membership": "invite", "invite_state": { "events": state } }),
        );
    }
    let presence: Vec<Value> = view
        .presence
        .iter()
        .map(|(user, info)| presence_of(user, info))
        .collect();
    let account_data: Vec<String> = view.account_data.iter().map(data_event).collect();
    let account_data = values(account_data.iter().map(String::as_str));
    let receipts: Vec<Value> = view
        .joined
        .iter()
        .flat_map(|room| receipt_events(room.room.id(), &room.receipts))
        .collect();
    Ok(
        json!({ "end": end, "rooms": list, "presence": presence, "account_data": account_data, "receipts": receipts }),
    )
}

/// Events as values; JSON that no value can hold, such as a number without end, is left out.
fn values<'a>(events: impl Iterator<Item = &'a str>) -> Vec<Value> {
    events
        .filter_map(|event| serde_json::from_str(event).ok())
        .collect()
}

impl SyncEngine {
    /// `rooms/{roomId}/initialSync`: one room, also one that was left or that everybody may read.
    pub fn room_snapshot(
        &self,
        user: &User,
        device: Option<&DeviceId>,
        room: &Room,
        limit: usize,
    ) -> Result<Value, Error> {
        let mut viewer = room.viewer(user.id())?.ignoring(user.ignored_users()?);
        let membership = viewer.membership();
        let until = match (membership, viewer.left()) {
            (Membership::Join, _) => Place::END,
            (_, Some(left)) => left,
            _ if room.history_visibility()? == Visibility::WorldReadable => Place::END,
            _ => return Err(hearth_rooms::Error::Forbidden("You are not in this room".to_owned()).into()),
        };
        let page = room.page(until, None, true, limit, &mut viewer, &|_| true)?;
        let last = page.events.first().map_or(until, |event| event.header.place);
        let first = page
            .next
            .or(page.events.last().map(|event| event.header.place.before()))
            .unwrap_or(last);
        let events: Vec<_> = page.events.into_iter().rev().collect();
        let (start, end) = (
            BatchToken::from(first).to_string(),
            BatchToken::from(last).to_string(),
        );
        let mut out = snapshot(&self.rooms, user, device, room, &events, start, end)?;
        if membership != Membership::None {
            out["membership"] = json!(membership.word());
        }
        let receipts = room.receipts(user.id())?;
        out["receipts"] = receipt_events(room.id(), &receipts).into();
        let mut presence = Vec::new();
        for present in self.users.presence().present() {
            if room.membership(&present)? == Membership::Join {
                presence.push(presence_of(&present, &self.users.presence().get(&present)));
            }
        }
        out["presence"] = json!(presence);
        Ok(out)
    }
}

/// An `m.presence` event as it was: the content says whose it is, too.
fn presence_of(user: &UserId, info: &PresenceInfo) -> Value {
    let mut event = presence_event(user, info);
    event["content"]["user_id"] = json!(user);
    event
}

fn receipt_events(room: &RoomId, receipts: &[Receipt]) -> Vec<Value> {
    let event = |content| json!({ "type": "m.receipt", "room_id": room, "content": content });
    receipt_contents(receipts).into_iter().map(event).collect()
}

/// A room with its newest messages and its state, as its reader may see them.
fn snapshot(
    rooms: &Rooms,
    user: &User,
    device: Option<&DeviceId>,
    room: &Room,
    events: &[std::sync::Arc<hearth_rooms::Event>],
    start: String,
    end: String,
) -> Result<Value, Error> {
    let mut viewer = room.viewer(user.id())?.ignoring(user.ignored_users()?);
    let rendering = Rendering {
        device: device.map(DeviceId::as_str),
        ..Rendering::default()
    };
    let chunk = room.render_all(events, &mut viewer, &rendering)?;
    let left = match viewer.membership() {
        Membership::Join => None,
        _ => viewer.left(),
    };
    // Who has left sees the state as it was then, also where another invitation came since.
    let ended = left.map(|place| room.event_at(place)).transpose()?.flatten();
    let state = match ended {
        Some(ended) => room.full_state_at(room.state_after(&ended)?)?,
        None => room.full_state()?,
    };
    let state = room.render_all(
        &state,
        &mut viewer,
        &Rendering {
            bundle: false,
            ..rendering
        },
    )?;
    let data = crate::account_data::all_of_room(user, room.id())?;
    let account_data: Vec<String> = data.iter().map(data_event).collect();
    let account_data = values(account_data.iter().map(String::as_str));
    Ok(json!({
        "room_id": room.id(),
        "messages": { "chunk": chunk, "start": start, "end": end },
        "state": state,
        "visibility": if rooms.is_listed(room)? { "public" } else { "private" },
        "account_data": account_data,
    }))
}
