//! Renderings for the endpoints that the specification has deprecated and old clients still call:
//! `/events`, `/initialSync` and `rooms/{roomId}/initialSync`.

use hearth_rooms::{Membership, Place, Receipt, Rendering, Room, Rooms, Visibility};
use hearth_users::User;
use ruma::{DeviceId, RoomId};
use serde_json::{Value, json, value::RawValue};

use crate::{
    BatchToken, Error, SyncEngine, SyncRequest, SyncToken, SyncView,
    v3::{data_event, presence_event, receipt_contents},
};

/// `/events`: the news as one list.
pub fn events(request: &SyncRequest, since: &SyncToken, view: &mut SyncView) -> Result<Value, Error> {
    let mut chunk: Vec<Value> = Vec::new();
    let device = request.device.as_ref().map(|device| device.as_str());
    let rendering = Rendering {
        device,
        ..Rendering::default()
    };
    for room in &mut view.joined {
        let id = room.room.id().to_owned();
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
    chunk.extend(
        view.presence
            .iter()
            .map(|(user, info)| presence_event(user, info)),
    );
    Ok(json!({ "start": since.to_string(), "end": view.next.to_string(), "chunk": chunk }))
}

/// `/initialSync`: the whole account as an initial sync shows it.
pub fn initial(rooms: &Rooms, request: &SyncRequest, view: &mut SyncView) -> Result<Value, Error> {
    let mut list = Vec::new();
    let end = view.next.to_string();
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
    for invited in &view.invited {
        list.push(json!({ "room_id": invited.room_id, "membership": "invite", "invite_state": { "events": invited.state } }));
    }
    let presence: Vec<Value> = view
        .presence
        .iter()
        .map(|(user, info)| presence_event(user, info))
        .collect();
    let account_data: Vec<Box<RawValue>> = view
        .account_data
        .iter()
        .map(|event| RawValue::from_string(data_event(event)))
        .collect::<Result<_, _>>()?;
    let receipts: Vec<Value> = view
        .joined
        .iter()
        .flat_map(|room| receipt_events(room.room.id(), &room.receipts))
        .collect();
    Ok(
        json!({ "end": end, "rooms": list, "presence": presence, "account_data": account_data, "receipts": receipts }),
    )
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
                presence.push(presence_event(&present, &self.users.presence().get(&present)));
            }
        }
        out["presence"] = json!(presence);
        Ok(out)
    }
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
    // Who has left sees the state as it was then: that after the own member event.
    let state = match left.and(room.state("m.room.member", user.id().as_str())?) {
        Some(own) => room.full_state_at(room.state_after(&own)?)?,
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
    let account_data: Vec<Box<RawValue>> = data
        .iter()
        .map(|event| RawValue::from_string(data_event(event)))
        .collect::<Result<_, _>>()?;
    Ok(json!({
        "room_id": room.id(),
        "messages": { "chunk": chunk, "start": start, "end": end },
        "state": state,
        "visibility": if rooms.is_listed(room)? { "public" } else { "private" },
        "account_data": account_data,
    }))
}
