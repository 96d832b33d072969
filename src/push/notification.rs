//! What a push gateway is told (push gateway API, `POST /_matrix/push/v1/notify`).

use hearth_rooms::{Event, Room};
use hearth_users::{Pusher, User};
use ruma::push::Action;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Error;

/// The form of notifications that has nothing of the event but its id.
const EVENT_ID_ONLY: &str = "event_id_only";

/// The largest content that goes along: push providers take some 4 kB in all.
const CONTENT_MAX_BYTES: usize = 8 << 10;

/// The body that tells of an event, or of the counts alone.
pub(crate) fn body(
    pusher: &Pusher,
    user: &User,
    event: Option<(&Room, &Event, &[Action])>,
    unread: u64,
) -> Result<Value, Error> {
    let mut device = json!({
        "app_id": pusher.app_id,
        "pushkey": pusher.pushkey,
        "pushkey_ts": pusher.ts / 1000,
        "data": data(pusher),
    });
    let mut notification = Map::new();
    notification.insert("counts".to_owned(), json!({ "unread": unread }));
    if let Some((room, event, actions)) = event {
        notification.insert("event_id".to_owned(), json!(event.id()));
        notification.insert("room_id".to_owned(), json!(room.id()));
        let tweaks = tweaks(actions);
        if pusher.data.get("format").and_then(Value::as_str) != Some(EVENT_ID_ONLY) {
            describe(&mut notification, user, room, event)?;
            notification.insert("prio".to_owned(), json!(priority(event, &tweaks)));
            device["tweaks"] = Value::Object(tweaks);
        }
    }
    notification.insert("devices".to_owned(), json!([device]));
    Ok(json!({ "notification": notification }))
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

/// Low where the device may wait: nothing rings, and it need not look what is encrypted.
fn priority(event: &Event, tweaks: &Map<String, Value>) -> &'static str {
    let rings = tweaks.contains_key("sound") || tweaks.get("highlight") == Some(&Value::Bool(true));
    match rings || event.pdu.kind() == "m.room.encrypted" {
        true => "high",
        false => "low",
    }
}

fn describe(
    notification: &mut Map<String, Value>,
    user: &User,
    room: &Room,
    event: &Event,
) -> Result<(), Error> {
    let pdu = &event.pdu;
    notification.insert("type".to_owned(), json!(pdu.kind()));
    notification.insert("sender".to_owned(), json!(pdu.sender()));
    #[derive(Deserialize)]
    struct Member {
        displayname: Option<String>,
    }
    if let Some(member) = room.state("m.room.member", pdu.sender().as_str())? {
        let member: Option<Member> = serde_json::from_slice(member.pdu.content()).ok();
        if let Some(name) = member.and_then(|member| member.displayname) {
            notification.insert("sender_display_name".to_owned(), json!(name));
        }
    }
    if let Some(name) = room.state_text("m.room.name", "name")? {
        notification.insert("room_name".to_owned(), json!(name));
    }
    if let Some(alias) = room.canonical_alias()? {
        notification.insert("room_alias".to_owned(), json!(alias));
    }
    if pdu.kind() == "m.room.member" {
        let is_target = pdu.state_key() == Some(user.id().as_str());
        notification.insert("user_is_target".to_owned(), json!(is_target));
    }
    if pdu.content().len() <= CONTENT_MAX_BYTES {
        let content: Value = serde_json::from_slice(pdu.content()).unwrap_or_default();
        notification.insert("content".to_owned(), content);
    }
    Ok(())
}
