//! Upgrading a room to another version (client-server API, "Room upgrades").

use std::sync::Arc;

use hearth_events::CreateInfo;
use ruma::{OwnedUserId, RoomVersionId, UserId};
use serde_json::{Map, Value, json};

use crate::{CreateRoom, Error, Membership, NewEvent, Preset, Room, Rooms};

/// The state that is carried over, where the old room has it.
const CARRIED_TYPES: [&str; 11] = [
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.policy",
    // Its aliases are moved to the new room at once.
    "m.room.canonical_alias",
];

/// The most children of a space that are carried over.
const CHILDREN_CARRIED_MAX: usize = 400;

/// The most bans that are carried over in the new room's first batch.
const BANS_CARRIED_MAX: usize = 1000;

impl Rooms {
    /// Replaces a room by a new one of another version, and closes the old.
    pub async fn upgrade(
        self: &Arc<Self>,
        old: &Room,
        sender: &UserId,
        profile: Map<String, Value>,
        version: RoomVersionId,
        additional_creators: Vec<OwnedUserId>,
    ) -> Result<Room, Error> {
        let rules =
            hearth_events::rules(&version).ok_or_else(|| Error::UnsupportedVersion(version.to_string()))?;
        if old.membership(sender)? != Membership::Join {
            return Err(Error::Forbidden("You are not in this room".to_owned()));
        }
        old.check_may_send_state(sender, "m.room.tombstone")?;
        let create = old
            .state("m.room.create", "")?
            .ok_or(Error::Damaged("create event"))?;
        let mut creation_content: Map<String, Value> =
            serde_json::from_slice(create.pdu.content()).map_err(|_| Error::Damaged("create event"))?;
        for name in ["creator", "room_version", "additional_creators"] {
            creation_content.remove(name);
        }
        creation_content.values_mut().for_each(cut_fractions);
        let mut predecessor = json!({ "room_id": old.id() });
        // Where a room's id is the hash of its create event, nobody can know the last event of the old room (the
        // tombstone names the new one) before it is sent (MSC4291).
        if !rules.room_id_is_create_hash() {
            predecessor["event_id"] = json!(old.last_event_id()?);
        }
        creation_content.insert("predecessor".to_owned(), predecessor);
        // Where the version has none, they have no effect.
        let additional_creators = match rules.authorization.additional_room_creators {
            true => additional_creators,
            false => Vec::new(),
        };
        if !additional_creators.is_empty() {
            creation_content.insert("additional_creators".to_owned(), json!(additional_creators));
        }
        let privileged = rules.authorization.explicitly_privilege_room_creators;
        let mut spec = CreateRoom {
            version: Some(version),
            creator_profile: profile,
            creation_content,
            ..CreateRoom::new(sender.to_owned(), Preset::PrivateChat)
        };
        for kind in CARRIED_TYPES {
            let Some(event) = old.state(kind, "")? else {
                continue;
            };
            let mut content: Value =
                serde_json::from_slice(event.pdu.content()).map_err(|_| Error::Damaged("event"))?;
            if kind == "m.room.power_levels" {
                carry_power(
                    &mut content,
                    sender,
                    &additional_creators,
                    privileged,
                    &old.create_info(),
                );
                spec.power_levels = content.as_object().cloned();
                continue;
            }
            spec.initial_state.push((kind.to_owned(), String::new(), content));
        }
        if old.create_info().room_type.as_deref() == Some("m.space") {
            spec.initial_state.extend(old.children_to_carry()?);
        }
        spec.extra_bans = old.bans()?;
        let carried = spec.initial_state.iter_mut().map(|(_, _, content)| content);
        let bans = spec.extra_bans.iter_mut().map(|(_, content)| content);
        carried.chain(bans).for_each(cut_fractions);
        if !privileged {
            set_up_with_power(&mut spec);
        }
        let new = self.create(spec).await?;
        self.move_aliases(old, &new, sender).await?;
        self.close_upgraded(old, &new, sender).await?;
        Ok(new)
    }

    /// Points the old room's aliases and its place in the directory to the new one; the old one has no canonical alias
    /// any more.
    async fn move_aliases(&self, old: &Room, new: &Room, sender: &UserId) -> Result<(), Error> {
        for alias in old.aliases()? {
            self.move_alias(&alias, old.id(), new.id()).await?;
        }
        if self.is_listed(old)? {
            self.set_listed(new, true).await?;
            self.set_listed(old, false).await?;
        }
        if old.state("m.room.canonical_alias", "")?.is_none() {
            return Ok(());
        }
        // Not having the power to take it out of the old room is no reason to fail.
        let emptied = NewEvent::state(sender, "m.room.canonical_alias", "", &json!({}));
        drop(old.send(emptied, None).await);
        Ok(())
    }

    /// Sends the tombstone and, where the sender's power suffices, keeps people from talking on.
    async fn close_upgraded(&self, old: &Room, new: &Room, sender: &UserId) -> Result<(), Error> {
        let content = json!({
            "body": "This room has been replaced",
            "replacement_room": new.id(),
        });
        old.send(NewEvent::state(sender, "m.room.tombstone", "", &content), None)
            .await?;
        let Some(event) = old.state("m.room.power_levels", "")? else {
            return Ok(());
        };
        let mut levels: Map<String, Value> =
            serde_json::from_slice(event.pdu.content()).map_err(|_| Error::Damaged("event"))?;
        make_whole(&mut levels);
        let level =
            |levels: &Map<String, Value>, name: &str| levels.get(name).and_then(Value::as_i64).unwrap_or(0);
        let closed = 50.max(level(&levels, "users_default") + 1);
        for name in ["events_default", "invite"] {
            let now = level(&levels, name);
            levels.insert(name.to_owned(), json!(closed.max(now)));
        }
        let event = NewEvent::state(sender, "m.room.power_levels", "", &Value::Object(levels));
        match old.send(event, None).await {
            Ok(_) | Err(Error::Forbidden(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Fits the old power levels to the new room: whoever creates it must be able to set it up, and
/// creators with power by their position are not listed.
fn carry_power(
    content: &mut Value,
    sender: &UserId,
    creators: &[OwnedUserId],
    privileged: bool,
    old: &CreateInfo,
) {
    let Some(levels) = content.as_object_mut() else {
        return;
    };
    make_whole(levels);
    let highest = highest(levels);
    let of_state = levels.get("state_default").and_then(Value::as_i64).unwrap_or(50);
    let users = levels.entry("users").or_insert_with(|| json!({}));
    let Some(users) = users.as_object_mut() else {
        return;
    };
    if privileged {
        users.remove(sender.as_str());
        for creator in creators {
            users.remove(creator.as_str());
        }
        let events = levels.entry("events").or_insert_with(|| json!({}));
        if let Some(events) = events.as_object_mut() {
            // More than the state of the room takes, and no less than before.
            let before = events.get("m.room.tombstone").and_then(Value::as_i64);
            let level = before.unwrap_or(0).max(of_state.saturating_add(1)).max(150);
            events.insert("m.room.tombstone".to_owned(), json!(level));
        }
        return;
    }
    // Whose power had no bound has the most there is: otherwise nobody could do what takes more than 100, as to replace
    // the room once more.
    for creator in old.creators.iter().filter(|_| old.privileged_creators) {
        users.insert(creator.to_string(), json!(highest));
    }
    users.entry(sender.to_string()).or_insert(json!(100));
}

/// The highest power that levels speak of; at least what who makes a room has.
fn highest(levels: &Map<String, Value>) -> i64 {
    let maps = ["events", "users"]
        .into_iter()
        .filter_map(|name| levels.get(name)?.as_object());
    let all = levels.values().chain(maps.flat_map(Map::values));
    all.filter_map(Value::as_i64).fold(100, i64::max)
}

/// The members of power levels that are levels.
const LEVELS: [&str; 7] = [
    "ban",
    "events_default",
    "invite",
    "kick",
    "redact",
    "state_default",
    "users_default",
];

/// Writes levels as the integers that they count as: room versions before 10 also have strings and fractions, which later
/// ones refuse.
fn make_whole(levels: &mut Map<String, Value>) {
    for (name, value) in levels.iter_mut() {
        match (name.as_str(), value) {
            ("events" | "notifications" | "users", Value::Object(map)) => map.retain(|_, level| {
                let whole = whole(level);
                *level = json!(whole);
                whole.is_some()
            }),
            (_, value) if value.is_number() || LEVELS.contains(&name.as_str()) => {
                *value = json!(whole(value));
            }
            _ => {}
        }
    }
    levels.retain(|name, value| !(value.is_null() && LEVELS.contains(&name.as_str())));
}

/// Cuts the fractions off numbers: room versions before 6 have them in events, later ones refuse them.
fn cut_fractions(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => *value = json!(whole(value)),
        Value::Array(list) => list.iter_mut().for_each(cut_fractions),
        Value::Object(members) => members.values_mut().for_each(cut_fractions),
        _ => {}
    }
}

fn whole(level: &Value) -> Option<i64> {
    match level {
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => {
            let cut = || number.as_f64().map(|fraction| fraction.trunc() as i64);
            number.as_i64().or_else(cut)
        }
        _ => None,
    }
}

/// Lets a sender who has less power than the carried state asks for set the new room up, and gives the power back at
/// the end: whoever may replace a room can do so whatever its other levels are.
fn set_up_with_power(spec: &mut CreateRoom) {
    let Some(levels) = &mut spec.power_levels else {
        return;
    };
    let number = |value: Option<&Value>| value.and_then(Value::as_i64);
    let level = |name: &str, default: i64| number(levels.get(name)).unwrap_or(default);
    let of_user = |user: &UserId| {
        let own = levels
            .get("users")
            .and_then(|users| number(users.get(user.as_str())));
        own.unwrap_or(level("users_default", 0))
    };
    let mut needed = level("state_default", 50);
    let of_events = levels.get("events").and_then(Value::as_object);
    let of_events = of_events.into_iter().flat_map(Map::values);
    needed = of_events.filter_map(Value::as_i64).fold(needed, i64::max);
    if !spec.extra_bans.is_empty() {
        needed = needed.max(level("ban", 50));
    }
    for (banned, _) in &spec.extra_bans {
        needed = needed.max(of_user(banned).saturating_add(1));
    }
    if of_user(&spec.creator) >= needed {
        return;
    }
    let last = Value::Object(levels.clone());
    if let Some(users) = levels.get_mut("users").and_then(Value::as_object_mut) {
        users.insert(spec.creator.to_string(), json!(needed));
        spec.last_power_levels = Some(last);
    }
}

impl Room {
    /// The children of a space, as the space that replaces it begins with them.
    fn children_to_carry(&self) -> Result<Vec<(String, String, Value)>, Error> {
        let mut children = Vec::new();
        for event in self.state_of_type("m.space.child")? {
            let content: Value = serde_json::from_slice(event.pdu.content()).unwrap_or_default();
            let is_child = content["via"].as_array().is_some_and(|via| !via.is_empty());
            if let Some(key) = event.pdu.state_key().filter(|_| is_child) {
                children.push(("m.space.child".to_owned(), key.to_owned(), content));
            }
        }
        children.truncate(CHILDREN_CARRIED_MAX);
        Ok(children)
    }

    /// The id of the newest event.
    pub fn last_event_id(&self) -> Result<Option<ruma::OwnedEventId>, Error> {
        let mut last = None;
        self.visit_timeline(crate::Place::START, crate::Place::END, true, &mut |row| {
            last = Some(row.short);
            false
        })?;
        match last {
            Some(short) => Ok(self.event(short)?.map(|event| event.id().to_owned())),
            None => Ok(None),
        }
    }

    /// Refuses, with the sentence a client is shown, what the user has no power for.
    pub fn check_may_send_state(&self, user: &UserId, kind: &str) -> Result<(), Error> {
        let create = self.create_info();
        let levels = self.power_levels()?;
        let view = hearth_events::PowerView::new(&create, levels.as_ref());
        let needed = view.needed_for(kind, true);
        if view.user(user).reaches(needed) {
            return Ok(());
        }
        Err(Error::Forbidden(format!(
            "You need power level {needed} to send {kind}"
        )))
    }

    fn bans(&self) -> Result<Vec<(OwnedUserId, Value)>, Error> {
        let mut banned = Vec::new();
        self.visit_members(&mut |user, membership, short| {
            if membership == Membership::Ban {
                banned.push((user.to_owned(), short));
            }
            banned.len() < BANS_CARRIED_MAX
        })?;
        let mut out = Vec::with_capacity(banned.len());
        for (user, short) in banned {
            let Some(event) = self.event(short)? else { continue };
            out.push((
                user,
                serde_json::from_slice(event.pdu.content()).unwrap_or_default(),
            ));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_become_whole() {
        let mut levels = json!({
            "ban": "60", "kick": 50, "invite": 30.7, "redact": null, "users_default": " -5 ", "historical": 100.0,
            "users": { "@a:x": "100", "@b:x": 50 }, "events": { "m.room.name": 20.9, "m.x": [] },
            "notifications": { "room": "70" }, "org.example": "10",
        });
        let expected = json!({
            "ban": 60, "kick": 50, "invite": 30, "users_default": -5, "historical": 100,
            "users": { "@a:x": 100, "@b:x": 50 }, "events": { "m.room.name": 20 },
            "notifications": { "room": 70 }, "org.example": "10",
        });
        make_whole(levels.as_object_mut().expect("an object"));
        assert_eq!(levels, expected);
    }
}
