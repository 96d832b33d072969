//! An [`Answer`] as JSON, for either wire.

use std::sync::Arc;

use hearth_rooms::{Event, Format, Rendering, Room, Viewer};
use hearth_users::Membership;
use ruma::{DeviceId, OwnedRoomId};
use serde_json::{Value, json, value::RawValue};

use super::{
    engine::Answer,
    extensions::ExtensionNews,
    facts::Hero,
    room::{Body, FullRoom, Gone, RoomNews},
};
use crate::{
    BatchToken, Error,
    v3::{Object, data_event, receipt_contents},
};

/// The two ways in which clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// `/unstable/org.matrix.simplified_msc3575/sync`, as matrix-rust-sdk speaks it.
    Unstable,
    /// `/v4/sync`, as MSC4186 was merged.
    V4,
}

/// The extension of thread subscriptions (MSC4308), by its name before it is in the specification.
const THREADS: &str = "io.element.msc4308.thread_subscriptions";

/// Writes answers for one device.
struct Writer<'a> {
    wire: Wire,
    device: Option<&'a DeviceId>,
}

/// The body of an answer.
pub fn render(wire: Wire, device: Option<&DeviceId>, answer: &mut Answer) -> Result<String, Error> {
    let writer = Writer { wire, device };
    let mut out = Object::new();
    out.text("pos", &answer.pos_text);
    let mut lists = Object::new();
    for (name, count) in &answer.lists {
        lists.raw(name, &json!({ "count": count }).to_string());
    }
    out.raw("lists", &lists.end());
    let mut rooms = Object::new();
    for news in &mut answer.rooms {
        let id = news.room_id.clone();
        rooms.raw(id.as_str(), &writer.room(news)?);
    }
    out.raw("rooms", &rooms.end());
    out.raw("extensions", &extensions(&answer.extensions)?);
    Ok(out.end())
}

impl Writer<'_> {
    fn room(&self, news: &mut RoomNews) -> Result<String, Error> {
        let mut out = Object::new();
        if let Some(stamp) = news.bump_stamp {
            out.raw("bump_stamp", &stamp.to_string());
        }
        if self.wire == Wire::V4 {
            out.raw("membership", &json!(news.membership).to_string());
            if !news.lists.is_empty() {
                let lists: Vec<&str> = news.lists.iter().map(|list| &**list).collect();
                out.raw("lists", &json!(lists).to_string());
            }
        }
        let (initial, membership, is_dm) = (news.initial, news.membership, self.dm(news));
        match (&mut news.body, self.wire) {
            (Body::Full(full), _) => {
                if let Some(is_dm) = is_dm {
                    out.raw("is_dm", word(is_dm));
                }
                self.full(&mut out, full, initial)?;
            }
            (Body::Stripped { state, gone: None }, Wire::Unstable)
                if matches!(membership, Membership::Invite | Membership::Knock) =>
            {
                if let Some(is_dm) = is_dm {
                    out.raw("is_dm", word(is_dm));
                }
                out.raw("initial", word(initial));
                out.raw("invite_state", &array(state.iter().map(|event| event.get())));
            }
            (Body::Stripped { gone: Some(gone), .. }, Wire::Unstable) => {
                // This wire has no membership: the client reads it off the member event.
                let own = match gone {
                    Gone::Event(event) => {
                        let (room, viewer, own) = &mut **event;
                        self.events(room, viewer, std::slice::from_ref(own), false)?
                    }
                    Gone::Entry(event) => array(std::iter::once(event.get())),
                };
                out.raw("initial", word(initial));
                out.raw("timeline", &own);
                out.raw("required_state", &own);
            }
            (Body::Stripped { .. }, Wire::Unstable) => out.raw("initial", word(initial)),
            (Body::Stripped { state, .. }, Wire::V4) => {
                out.raw("stripped_state", &array(state.iter().map(|event| event.get())));
            }
        }
        Ok(out.end())
    }

    /// Whether the room is a direct chat, where that is to be said.
    fn dm(&self, news: &RoomNews) -> Option<bool> {
        let always = self.wire == Wire::Unstable && news.initial;
        (always || news.dm_changed).then_some(news.is_dm)
    }

    fn full(&self, out: &mut Object, full: &mut FullRoom, initial: bool) -> Result<(), Error> {
        for (name, text) in [("name", &full.name), ("avatar", &full.avatar)] {
            match text {
                Some(Some(text)) => out.text(name, text),
                Some(None) if !initial => out.raw(name, "null"),
                _ => {}
            }
        }
        if let Some(heroes) = full
            .heroes
            .as_ref()
            .filter(|heroes| !initial || !heroes.is_empty())
        {
            let heroes: Vec<Value> = heroes.iter().map(hero).collect();
            out.raw("heroes", &json!(heroes).to_string());
        }
        let timeline = &full.timeline;
        for (name, is_so) in [
            ("initial", initial),
            ("limited", timeline.limited),
            (self.expanded(), full.expanded),
        ] {
            if is_so {
                out.raw(name, "true");
            }
        }
        let state = self.state(full)?;
        if state != "[]" {
            out.raw("required_state", &state);
        }
        if initial || full.expanded || !full.timeline.events.is_empty() || full.timeline.limited {
            let events = self.events(&full.room, &mut full.viewer, &full.timeline.events, true)?;
            out.raw("timeline", &events);
            out.text("prev_batch", &BatchToken::from(full.timeline.start).to_string());
            out.raw("num_live", &full.live.to_string());
        }
        if let Some((joined, invited)) = full.counts {
            out.raw("joined_count", &joined.to_string());
            out.raw("invited_count", &invited.to_string());
        }
        if let Some(unread) = full.unread {
            out.raw("notification_count", &unread.notifications.to_string());
            out.raw("highlight_count", &unread.highlights.to_string());
        }
        Ok(())
    }

    fn expanded(&self) -> &'static str {
        match self.wire {
            Wire::Unstable => "unstable_expanded_timeline",
            Wire::V4 => "expanded_timeline",
        }
    }

    fn state(&self, full: &mut FullRoom) -> Result<String, Error> {
        let mut state = self.rendered(&full.room, &mut full.viewer, &full.state, false)?;
        if self.wire == Wire::V4 {
            for (kind, key) in &full.deleted {
                let stub = json!({ "type": kind, "state_key": key });
                state.push(serde_json::value::to_raw_value(&stub)?);
            }
        }
        Ok(array(state.iter().map(|event| event.get())))
    }

    fn events(
        &self,
        room: &Room,
        viewer: &mut Viewer,
        events: &[Arc<Event>],
        bundle: bool,
    ) -> Result<String, Error> {
        let events = self.rendered(room, viewer, events, bundle)?;
        Ok(array(events.iter().map(|event| event.get())))
    }

    fn rendered(
        &self,
        room: &Room,
        viewer: &mut Viewer,
        events: &[Arc<Event>],
        bundle: bool,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        let rendering = Rendering {
            format: Format::Sync,
            device: self.device.map(DeviceId::as_str),
            bundle,
        };
        Ok(room.render_all(events, viewer, &rendering)?)
    }
}

fn hero(hero: &Hero) -> Value {
    let mut out = json!({ "user_id": hero.user_id });
    for (name, text) in [
        ("displayname", &hero.displayname),
        ("avatar_url", &hero.avatar_url),
    ] {
        if let Some(text) = text {
            out[name] = json!(text);
        }
    }
    out
}

fn extensions(news: &ExtensionNews) -> Result<String, Error> {
    let mut out = Object::new();
    if let Some((events, next)) = &news.to_device {
        let mut object = Object::new();
        object.text("next_batch", &next.to_string());
        object.raw("events", &array(events.iter().map(|event| event.get())));
        out.raw("to_device", &object.end());
    }
    if let Some((lists, counts)) = &news.e2ee {
        let mut object = Object::new();
        if !lists.is_empty() {
            let lists = json!({ "changed": lists.changed, "left": lists.left });
            object.raw("device_lists", &lists.to_string());
        }
        // Always there: clients upload keys by what they see here.
        object.raw("device_one_time_keys_count", &json!(counts.one_time).to_string());
        object.raw(
            "device_unused_fallback_key_types",
            &json!(counts.unused_fallback).to_string(),
        );
        out.raw("e2ee", &object.end());
    }
    out.section("account_data", account_data(news));
    let receipts = news.receipts.iter().filter_map(|(room, receipts)| {
        let content = receipt_contents(receipts).into_iter().next()?;
        Some((room, json!({ "type": "m.receipt", "content": content })))
    });
    out.section("receipts", of_rooms(receipts));
    let typing = news.typing.iter().map(|(room, users)| {
        let event = json!({ "type": "m.typing", "content": { "user_ids": users } });
        (room, event)
    });
    out.section("typing", of_rooms(typing));
    if !news.threads.threads.is_empty() {
        let mut object = news.threads.to_json();
        if let Some(before) = news.threads.before {
            object.insert("prev_batch".to_owned(), before.to_string().into());
        }
        out.raw(THREADS, &Value::Object(object).to_string());
    }
    Ok(out.end())
}

fn account_data(news: &ExtensionNews) -> Object {
    let mut object = Object::new();
    if !news.global.is_empty() {
        let events: Vec<String> = news.global.iter().map(data_event).collect();
        object.raw("global", &array(events.iter().map(String::as_str)));
    }
    let mut rooms = Object::new();
    for (room, data) in &news.data {
        let events: Vec<String> = data.iter().map(data_event).collect();
        rooms.raw(room.as_str(), &array(events.iter().map(String::as_str)));
    }
    object.section("rooms", rooms);
    object
}

/// `{"rooms": {…}}`, or nothing where there are none.
fn of_rooms<'a>(events: impl Iterator<Item = (&'a OwnedRoomId, Value)>) -> Object {
    let mut rooms = Object::new();
    for (room, event) in events {
        rooms.raw(room.as_str(), &event.to_string());
    }
    let mut object = Object::new();
    object.section("rooms", rooms);
    object
}

fn word(is_so: bool) -> &'static str {
    if is_so { "true" } else { "false" }
}

fn array<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<&str> = items.collect();
    format!("[{}]", items.join(","))
}
