//! `/sync` of the client-server API: a [`SyncView`] as JSON.

use std::collections::BTreeMap;

use hearth_rooms::{Event, Format, Receipt, Rendering, Room, Viewer};
use hearth_users::PresenceInfo;
use ruma::UserId;
use serde_json::{Value, json, value::RawValue};

use crate::{
    BatchToken, Error, EventFormat, JoinedRoom, LeftRoom, StateSide, StrippedRoom, SyncRequest, SyncView,
    filter,
    view::{DataEvent, Timeline},
};

/// The answer to a `/sync` request.
pub fn render(request: &SyncRequest, view: &mut SyncView) -> Result<String, Error> {
    let mut out = Object::new();
    out.text("next_batch", &view.next_batch);
    if !view.account_data.is_empty() {
        out.raw("account_data", &data_events(&view.account_data));
    }
    if !view.presence.is_empty() {
        let events = view
            .presence
            .iter()
            .map(|(user, info)| presence_event(user, info).to_string());
        out.raw("presence", &events_object(events));
    }
    if !view.to_device.is_empty() {
        out.raw(
            "to_device",
            &events_object(view.to_device.iter().map(|event| event.get().to_owned())),
        );
    }
    if !view.device_lists.is_empty() {
        let lists = json!({ "changed": view.device_lists.changed, "left": view.device_lists.left });
        out.raw("device_lists", &lists.to_string());
    }
    // Always there: clients upload keys by what they see here, and take its absence for ignorance.
    if let Some(counts) = &view.key_counts {
        out.raw("device_one_time_keys_count", &json!(counts.one_time).to_string());
        out.raw(
            "device_unused_fallback_key_types",
            &json!(counts.unused_fallback).to_string(),
        );
    }
    let rooms = rooms(request, view)?;
    if rooms != "{}" {
        out.raw("rooms", &rooms);
    }
    Ok(out.end())
}

fn rooms(request: &SyncRequest, view: &mut SyncView) -> Result<String, Error> {
    let writer = Writer { request };
    let mut out = Object::new();
    let mut section = Object::new();
    for room in &mut view.joined {
        let id = room.room.id().to_owned();
        section.raw(id.as_str(), &writer.joined(room)?);
    }
    out.section("join", section);
    for (name, key, rooms) in [
        ("invite", "invite_state", &view.invited),
        ("knock", "knock_state", &view.knocked),
    ] {
        let mut section = Object::new();
        for room in rooms {
            section.raw(room.room_id.as_str(), &stripped(key, room));
        }
        out.section(name, section);
    }
    let mut section = Object::new();
    for room in &mut view.left {
        let id = room.room.id().to_owned();
        section.raw(id.as_str(), &writer.left(room)?);
    }
    for left in &view.left_outside {
        let room = json!({ "timeline": { "events": [left.event], "limited": false } });
        section.raw(left.room_id.as_str(), &room.to_string());
    }
    out.section("leave", section);
    Ok(out.end())
}

fn stripped(key: &str, room: &StrippedRoom) -> String {
    let mut out = Object::new();
    out.raw(
        key,
        &events_object(room.state.iter().map(|event| event.get().to_owned())),
    );
    out.end()
}

/// Writes rooms for one request.
struct Writer<'a> {
    request: &'a SyncRequest,
}

impl Writer<'_> {
    fn joined(&self, news: &mut JoinedRoom) -> Result<String, Error> {
        let mut out = Object::new();
        self.history(
            &mut out,
            &news.room,
            &mut news.viewer,
            &news.timeline,
            &news.state,
            news.initial,
        )?;
        let mut ephemeral = Vec::new();
        if let Some(users) = &news.typing {
            ephemeral.push(json!({ "type": "m.typing", "content": { "user_ids": users } }).to_string());
        }
        for content in receipt_contents(&news.receipts) {
            ephemeral.push(json!({ "type": "m.receipt", "content": content }).to_string());
        }
        // Also where they are empty: clients read their `events` without asking.
        out.raw("ephemeral", &events_object(ephemeral));
        out.raw("account_data", &data_events(&news.account_data));
        if let Some(summary) = &news.summary {
            let mut object = Object::new();
            if let Some(heroes) = &summary.heroes {
                object.raw("m.heroes", &json!(heroes).to_string());
            }
            object.raw("m.joined_member_count", &summary.joined.to_string());
            object.raw("m.invited_member_count", &summary.invited.to_string());
            out.raw("summary", &object.end());
        }
        out.raw("unread_notifications", &counts(news.unread).to_string());
        if !news.unread_threads.is_empty() {
            let threads = news
                .unread_threads
                .iter()
                .map(|(root, unread)| (root.as_str(), counts(*unread)));
            let threads: BTreeMap<&str, Value> = threads.collect();
            out.raw("unread_thread_notifications", &json!(threads).to_string());
        }
        Ok(out.end())
    }

    fn left(&self, left: &mut LeftRoom) -> Result<String, Error> {
        let mut out = Object::new();
        self.history(
            &mut out,
            &left.room,
            &mut left.viewer,
            &left.timeline,
            &left.state,
            true,
        )?;
        if !left.account_data.is_empty() {
            out.raw("account_data", &data_events(&left.account_data));
        }
        Ok(out.end())
    }

    /// The timeline, and the state at the side of it that was asked for.
    fn history(
        &self,
        out: &mut Object,
        room: &Room,
        viewer: &mut Viewer,
        timeline: &Timeline,
        state: &[std::sync::Arc<Event>],
        always: bool,
    ) -> Result<(), Error> {
        if always || !timeline.events.is_empty() || timeline.limited {
            let mut object = Object::new();
            // A client that misses nothing has what would be bundled.
            let bundle = always || timeline.limited;
            object.raw("events", &self.events(room, viewer, &timeline.events, bundle)?);
            object.raw("limited", if timeline.limited { "true" } else { "false" });
            object.text("prev_batch", &BatchToken::from(timeline.start).to_string());
            out.raw("timeline", &object.end());
        }
        let name = match self.request.state {
            StateSide::Before => "state",
            StateSide::After => "state_after",
            StateSide::AfterUnstable => "org.matrix.msc4222.state_after",
        };
        if self.request.is_state_after() || always || !state.is_empty() {
            let mut object = Object::new();
            object.raw("events", &self.events(room, viewer, state, false)?);
            let object = object.end();
            out.raw(name, &object);
        }
        Ok(())
    }

    fn events(
        &self,
        room: &Room,
        viewer: &mut Viewer,
        events: &[std::sync::Arc<Event>],
        bundle: bool,
    ) -> Result<String, Error> {
        let filter = &self.request.filter;
        let format = match filter.event_format {
            EventFormat::Client => Format::Sync,
            EventFormat::Federation => Format::Federation,
        };
        let device = self.request.device.as_ref().map(|device| device.as_str());
        let rendering = Rendering {
            format,
            device,
            bundle,
        };
        let mut out = String::from("[");
        for event in events {
            if out.len() > 1 {
                out.push(',');
            }
            let json = room.render(event, viewer, &rendering)?;
            match &filter.event_fields {
                Some(fields) => out.push_str(&cut(&json, fields)?),
                None => out.push_str(json.get()),
            }
        }
        out.push(']');
        Ok(out)
    }
}

fn counts(unread: crate::view::Unread) -> Value {
    json!({
        "notification_count": unread.notifications,
        "highlight_count": unread.highlights,
    })
}

fn cut(event: &RawValue, fields: &filter::Fields) -> Result<String, Error> {
    let event: Value = serde_json::from_str(event.get())?;
    Ok(filter::cut(&event, fields).to_string())
}

/// The contents of `m.receipt` events: event, kind, user. One is enough, unless a user has a threaded and
/// an unthreaded receipt at the same event: an object has each user once. What other servers name that is no event id
/// comes last and apart: a client that cannot read it loses nothing else.
pub fn receipt_contents(receipts: &[Receipt]) -> Vec<Value> {
    type Content<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeMap<&'a str, Value>>>;
    let mut contents: Vec<Content<'_>> = Vec::new();
    let is_event_id = |receipt: &&Receipt| ruma::EventId::parse(&*receipt.event_id).is_ok();
    let (named, odd): (Vec<&Receipt>, Vec<&Receipt>) = receipts.iter().partition(is_event_id);
    let mut first = 0;
    for (at, receipt) in named.iter().chain(&odd).enumerate() {
        if at == named.len() {
            first = contents.len();
        }
        let mut data = json!({ "ts": receipt.ts });
        if let Some(thread) = &receipt.thread {
            data["thread_id"] = json!(thread);
        }
        let (event, kind, user) = (
            receipt.event_id.as_str(),
            receipt.kind.word(),
            receipt.user.as_str(),
        );
        let is_taken = |content: &Content<'_>| {
            content
                .get(event)
                .and_then(|kinds| kinds.get(kind))
                .is_some_and(|users| users.contains_key(user))
        };
        let at = contents[first..]
            .iter()
            .position(|content| !is_taken(content))
            .map_or(contents.len(), |at| first + at);
        if at == contents.len() {
            contents.push(Content::new());
        }
        contents[at]
            .entry(event)
            .or_default()
            .entry(kind)
            .or_default()
            .insert(user, data);
    }
    contents.into_iter().map(|content| json!(content)).collect()
}

/// An `m.presence` event.
pub fn presence_event(user: &UserId, info: &PresenceInfo) -> Value {
    let mut content = json!({ "presence": info.state.name(), "currently_active": info.currently_active });
    if let Some(ago) = info.last_active_ago_ms {
        content["last_active_ago"] = json!(ago);
    }
    if let Some(status) = &info.status_msg {
        content["status_msg"] = json!(status);
    }
    json!({ "type": "m.presence", "sender": user, "content": content })
}

/// `{"events": […]}` of account data.
pub fn data_events(events: &[DataEvent]) -> String {
    events_object(events.iter().map(data_event))
}

/// One account data event.
pub fn data_event(event: &DataEvent) -> String {
    let mut out = Object::new();
    out.text("type", &event.kind);
    out.raw("content", event.content.get());
    out.end()
}

fn events_object(events: impl IntoIterator<Item = String>) -> String {
    let events: Vec<String> = events.into_iter().collect();
    format!("{{\"events\":[{}]}}", events.join(","))
}

/// What most objects of an answer find room in.
const OBJECT_BYTES: usize = 512;

/// A JSON object that is written member by member.
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        let mut out = String::with_capacity(OBJECT_BYTES);
        out.push('{');
        Self(out)
    }

    /// A member whose value is JSON already.
    pub(crate) fn raw(&mut self, name: &str, value: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        push_text(&mut self.0, name);
        self.0.reserve(value.len() + 2);
        self.0.push(':');
        self.0.push_str(value);
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        let mut quoted = String::with_capacity(value.len() + 2);
        push_text(&mut quoted, value);
        self.raw(name, &quoted);
    }

    /// A member that is left out where it is empty.
    pub(crate) fn section(&mut self, name: &str, section: Object) {
        if section.0.len() > 1 {
            self.raw(name, &section.end());
        }
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A JSON string. Nearly all texts of an answer stand for themselves.
fn push_text(out: &mut String, text: &str) {
    if text
        .bytes()
        .any(|byte| byte < b' ' || byte == b'"' || byte == b'\\')
    {
        out.push_str(&Value::from(text).to_string());
        return;
    }
    out.reserve(text.len() + 2);
    out.push('"');
    out.push_str(text);
    out.push('"');
}
