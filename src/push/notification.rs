//! What a push gateway is told (push gateway API, `POST /_matrix/push/v1/notify`).

use hearth_rooms::{Event, Room};
use hearth_users::{Pusher, RoomEntry, User};
use ruma::push::Action;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Error;

/// The form of notifications that has nothing of the event but its id.
const EVENT_ID_ONLY: &str = "event_id_only";

/// The largest content that goes along: push providers take some 4 kB in all.
const CONTENT_MAX_BYTES: usize = 8 << 10;

/// The event that a notification tells of, with what a gateway is told of its room.
pub(crate) struct Told {
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    kind: String,
    sender: OwnedUserId,
    state_key: Option<String>,
    content: Value,
    ts: u64,
    sender_name: Option<String>,
    room_name: Option<String>,
    room_alias: Option<String>,
    actions: Vec<Action>,
}

impl Told {
    /// An event of a room that is here.
    pub(crate) fn event(room: &Room, event: &Event, actions: Vec<Action>) -> Result<Self, Error> {
        let pdu = &event.pdu;
        let member = room.state("m.room.member", pdu.sender().as_str())?;
        let sender_name = member.and_then(|member| name_in(member.pdu.content()));
        let content = match pdu.content().len() <= CONTENT_MAX_BYTES {
            true => serde_json::from_slice(pdu.content()).unwrap_or_default(),
            false => Value::Null,
        };
        Ok(Self {
            event_id: event.id().to_owned(),
            room_id: room.id().to_owned(),
            kind: pdu.kind().to_owned(),
            sender: pdu.sender().to_owned(),
            state_key: pdu.state_key().map(str::to_owned),
            content,
            ts: pdu.origin_server_ts(),
            sender_name,
            room_name: room.state_text("m.room.name", "name")?,
            room_alias: room.canonical_alias()?.map(|alias| alias.to_string()),
            actions,
        })
    }

    /// An invitation to a room that is not here: what the inviting server showed of it.
    pub(crate) fn invitation(user: &User, entry: &RoomEntry, actions: Vec<Action>) -> Self {
        let shown: Vec<Value> = entry
            .stripped_state
            .iter()
            .filter_map(|event| serde_json::from_str(event.get()).ok())
            .collect();
        let content = |kind: &str, state_key: &str| {
            let found = shown
                .iter()
                .find(|event| event["type"] == kind && event["state_key"] == state_key);
            found.map(|event| event["content"].clone())
        };
        let text = |kind: &str, state_key: &str, field: &str| {
            let text = content(kind, state_key)?.get(field)?.as_str().map(str::to_owned);
            text.filter(|text| !text.is_empty())
        };
        let own = content("m.room.member", user.id().as_str());
        Self {
            event_id: entry.event_id.clone(),
            room_id: entry.room_id.clone(),
            kind: "m.room.member".to_owned(),
            sender: entry.sender.clone(),
            state_key: Some(user.id().to_string()),
            content: own.unwrap_or_else(|| json!({ "membership": "invite" })),
            ts: entry.ts,
            sender_name: text("m.room.member", entry.sender.as_str(), "displayname"),
            room_name: text("m.room.name", "", "name"),
            room_alias: text("m.room.canonical_alias", "", "alias"),
            actions,
        }
    }

    /// The event as push rules look at it.
    pub(crate) fn to_event(&self) -> Value {
        let mut event = json!({
            "event_id": self.event_id,
            "room_id": self.room_id,
            "type": self.kind,
            "sender": self.sender,
            "content": self.content,
            "origin_server_ts": self.ts,
        });
        if let Some(state_key) = &self.state_key {
            event["state_key"] = json!(state_key);
        }
        event
    }

    /// Low where the device may wait: nothing rings, and it need not look what is encrypted.
    fn priority(&self, tweaks: &Map<String, Value>) -> &'static str {
        let rings = tweaks.contains_key("sound") || tweaks.get("highlight") == Some(&Value::Bool(true));
        match rings || self.kind == "m.room.encrypted" {
            true => "high",
            false => "low",
        }
    }

    fn describe(&self, notification: &mut Map<String, Value>, user: &User) {
        // NOTSPEC: the event's id under the name that it had before r0.3, the membership, and the alias in place of a
        // name that there is not, as gateways of long standing look for them.
        notification.insert("id".to_owned(), json!(self.event_id));
        notification.insert("type".to_owned(), json!(self.kind));
        notification.insert("sender".to_owned(), json!(self.sender));
        if let Some(name) = &self.sender_name {
            notification.insert("sender_display_name".to_owned(), json!(name));
        }
        if let Some(name) = self.room_name.as_ref().or(self.room_alias.as_ref()) {
            notification.insert("room_name".to_owned(), json!(name));
        }
        if let Some(alias) = &self.room_alias {
            notification.insert("room_alias".to_owned(), json!(alias));
        }
        if self.kind == "m.room.member" {
            let is_target = self.state_key.as_deref() == Some(user.id().as_str());
            notification.insert("user_is_target".to_owned(), json!(is_target));
            if let Some(membership) = self.content.get("membership") {
                notification.insert("membership".to_owned(), membership.clone());
            }
        }
        if !self.content.is_null() {
            notification.insert("content".to_owned(), self.content.clone());
        }
    }
}

fn name_in(content: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Member {
        displayname: Option<String>,
    }
    serde_json::from_slice::<Member>(content).ok()?.displayname
}

/// The body that tells of an event, or of the counts alone.
pub(crate) fn body(pusher: &Pusher, user: &User, told: Option<&Told>, unread: u64) -> Value {
    let mut device = json!({
        "app_id": pusher.app_id,
        "pushkey": pusher.pushkey,
        "pushkey_ts": pusher.ts / 1000,
        "data": data(pusher),
    });
    let mut notification = Map::new();
    // NOTSPEC: also where it is 0: gateways of long standing take its absence for no change, and would leave the badge.
    notification.insert("counts".to_owned(), json!({ "unread": unread }));
    if let Some(told) = told {
        notification.insert("event_id".to_owned(), json!(told.event_id));
        notification.insert("room_id".to_owned(), json!(told.room_id));
        let tweaks = tweaks(&told.actions);
        notification.insert("prio".to_owned(), json!(told.priority(&tweaks)));
        if pusher.data.get("format").and_then(Value::as_str) != Some(EVENT_ID_ONLY) {
            told.describe(&mut notification, user);
            device["tweaks"] = Value::Object(tweaks);
        }
    }
    notification.insert("devices".to_owned(), json!([device]));
    json!({ "notification": notification })
}

/// The pusher's data as it was given, without the gateway's own address.
fn data(pusher: &Pusher) -> Map<String, Value> {
    let mut data = pusher.data.clone();
    data.remove("url");
    data
}

/// The tweaks among some actions; one without a value is set.
fn tweaks(actions: &[Action]) -> Map<String, Value> {
    let mut tweaks = Map::new();
    for action in actions {
        let action = serde_json::to_value(action).unwrap_or_default();
        if let Some(name) = action.get("set_tweak").and_then(Value::as_str) {
            let value = action.get("value").cloned().unwrap_or(Value::Bool(true));
            tweaks.insert(name.to_owned(), value);
        }
    }
    tweaks
}
