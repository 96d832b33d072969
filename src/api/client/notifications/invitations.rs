//! Invitations among the notifications: events of rooms that the user is not in, as the user's own list has them.

use hearth_events::push::{Outcome, PushEvent, UnknownRoom};
use hearth_rooms::NotifiedWanted;
use hearth_users::{InviteVerdict, Membership, RoomEntry, User};
use serde_json::{Value, json};

use super::get_notifications::Mark;
use crate::error::Result;

/// The invitations that stand and of which the user was notified.
pub(super) fn invitations(user: &User, wanted: &NotifiedWanted) -> Result<Vec<(Mark, Value)>> {
    let (rules, ignored) = (user.rules()?, user.ignored_users()?);
    let mut found = Vec::new();
    for entry in user.rooms(&[Membership::Invite])? {
        let mark = (entry.ts, entry.event_id.clone());
        let is_later = wanted.before.as_ref().is_some_and(|before| mark >= *before);
        let is_unwanted =
            ignored.contains(&entry.sender) || user.invite_verdict(&entry.sender)? != InviteVerdict::Take;
        if is_later || is_unwanted {
            continue;
        }
        let event = event_of(user, &entry);
        let Some(parsed) = PushEvent::new(event.to_string().as_bytes()) else {
            continue;
        };
        let actions = rules.actions(user.id(), &parsed, &UnknownRoom(&entry.room_id));
        let outcome = Outcome::of(actions);
        if outcome.notify && (outcome.highlight || !wanted.highlights) {
            let shown = json!({
                "actions": actions,
                "event": event,
                "profile_tag": "",
                "read": false,
                "room_id": entry.room_id,
                "ts": entry.ts,
            });
            found.push((mark, shown));
        }
    }
    Ok(found)
}

/// The member event, as far as the user was shown of it.
fn event_of(user: &User, entry: &RoomEntry) -> Value {
    let is_own = |event: &Value| event["type"] == "m.room.member" && event["state_key"] == user.id().as_str();
    let shown = entry.stripped_state.iter();
    let shown = shown.filter_map(|event| serde_json::from_str::<Value>(event.get()).ok());
    let content = shown
        .filter(is_own)
        .find_map(|event| event.get("content").cloned());
    json!({
        "type": "m.room.member",
        "event_id": entry.event_id,
        "room_id": entry.room_id,
        "sender": entry.sender,
        "state_key": user.id(),
        "origin_server_ts": entry.ts,
        "content": content.unwrap_or_else(|| json!({ "membership": "invite" })),
    })
}
