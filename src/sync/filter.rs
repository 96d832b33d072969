//! Filters (client-server API, "Filtering"): which events a client wants to be sent.

use std::collections::{BTreeSet, HashSet};

use hearth_rooms::{Event, Relation};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Deserializer, de};

use crate::Error;

/// The most patterns with a `*` in one list: each is looked at for each event.
const WILDCARDS_MAX: usize = 100;
/// The most fields that events are cut down to.
const FIELDS_MAX: usize = 100;

/// Reads a member that is null as if it were not there.
fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A whole filter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// The fields that events are cut down to.
    pub event_fields: Option<Fields>,
    /// The form of events.
    #[serde(deserialize_with = "or_default")]
    pub event_format: EventFormat,
    /// What of presence.
    #[serde(deserialize_with = "or_default")]
    pub presence: EventFilter,
    /// What of the global account data.
    #[serde(deserialize_with = "or_default")]
    pub account_data: EventFilter,
    /// What of rooms.
    #[serde(deserialize_with = "or_default")]
    pub room: RoomFilter,
}

/// The form of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventFormat {
    /// As clients know them.
    #[default]
    Client,
    /// As servers exchange them.
    Federation,
}

/// What of rooms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoomFilter {
    /// Only these rooms.
    pub rooms: Option<HashSet<OwnedRoomId>>,
    /// Not these rooms.
    #[serde(deserialize_with = "or_default")]
    pub not_rooms: HashSet<OwnedRoomId>,
    /// Whether rooms that were left before are told of.
    #[serde(deserialize_with = "or_default")]
    pub include_leave: bool,
    /// What of the timeline.
    #[serde(deserialize_with = "or_default")]
    pub timeline: EventFilter,
    /// What of the state.
    #[serde(deserialize_with = "or_default")]
    pub state: EventFilter,
    /// What of typing and receipts.
    #[serde(deserialize_with = "or_default")]
    pub ephemeral: EventFilter,
    /// What of the account data of rooms.
    #[serde(deserialize_with = "or_default")]
    pub account_data: EventFilter,
}

/// Which events.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    /// At most so many.
    pub limit: Option<u64>,
    /// Only of these senders.
    pub senders: Option<HashSet<OwnedUserId>>,
    /// Not of these senders.
    #[serde(deserialize_with = "or_default")]
    pub not_senders: HashSet<OwnedUserId>,
    /// Only of these types; `*` stands for anything.
    pub types: Option<Patterns>,
    /// Not of these types.
    #[serde(deserialize_with = "or_default")]
    pub not_types: Patterns,
    /// Only in these rooms.
    pub rooms: Option<HashSet<OwnedRoomId>>,
    /// Not in these rooms.
    #[serde(deserialize_with = "or_default")]
    pub not_rooms: HashSet<OwnedRoomId>,
    /// Only with, or only without, a `url` in the content.
    pub contains_url: Option<bool>,
    /// Only with a relation of one of these types (MSC3874).
    #[serde(alias = "org.matrix.msc3874.rel_types")]
    pub rel_types: Option<HashSet<String>>,
    /// Not with a relation of one of these types (MSC3874).
    #[serde(alias = "org.matrix.msc3874.not_rel_types", deserialize_with = "or_default")]
    pub not_rel_types: HashSet<String>,
    /// Whether members are sent only as they are needed.
    #[serde(deserialize_with = "or_default")]
    pub lazy_load_members: bool,
    /// Whether members are sent again that the client knows.
    #[serde(deserialize_with = "or_default")]
    pub include_redundant_members: bool,
    /// Whether unread counts are told by thread.
    #[serde(deserialize_with = "or_default")]
    pub unread_thread_notifications: bool,
}

/// Event types, some of them with a `*`. Looking one up costs the same however many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    exact: HashSet<String>,
    wild: BTreeSet<String>,
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Self::default();
        for mut pattern in Vec::<String>::deserialize(deserializer)? {
            if !pattern.contains('*') {
                all.exact.insert(pattern);
                continue;
            }
            // Several say what one says.
            let mut after_star = false;
            pattern.retain(|char| !std::mem::replace(&mut after_star, char == '*') || char != '*');
            all.wild.insert(pattern);
            if all.wild.len() > WILDCARDS_MAX {
                let sentence = format!("a list of types has more than {WILDCARDS_MAX} patterns with a `*`");
                return Err(de::Error::custom(sentence));
            }
        }
        Ok(all)
    }
}

impl Patterns {
    /// Whether a type is one of these.
    pub fn has(&self, kind: &str) -> bool {
        self.exact.contains(kind) || self.wild.iter().any(|pattern| matches(pattern, kind))
    }
}

/// Paths of fields in events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<Vec<String>>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let paths = Vec::<String>::deserialize(deserializer)?;
        if paths.len() > FIELDS_MAX {
            let sentence = format!("`event_fields` has more than {FIELDS_MAX} fields");
            return Err(de::Error::custom(sentence));
        }
        Ok(Self(paths.iter().map(|path| split_path(path)).collect()))
    }
}

impl Filter {
    /// Reads a filter from JSON text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|error| Error::BadFilter(error.to_string()))
    }

    /// Reads a stored filter.
    pub fn from_value(value: serde_json::Value) -> Result<Self, Error> {
        serde_json::from_value(value).map_err(|error| Error::BadFilter(error.to_string()))
    }
}

impl RoomFilter {
    /// Whether a room is told of at all.
    pub fn has_room(&self, room: &RoomId) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.contains(room)) && !self.not_rooms.contains(room)
    }

    /// How many timeline events a room is sent.
    pub fn timeline_limit(&self) -> usize {
        use hearth_core::limits::{SYNC_TIMELINE_DEFAULT_EVENTS, SYNC_TIMELINE_MAX_EVENTS};
        let asked = self
            .timeline
            .limit
            .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        asked
            .unwrap_or(SYNC_TIMELINE_DEFAULT_EVENTS)
            .min(SYNC_TIMELINE_MAX_EVENTS)
    }

    /// Whether members are loaded lazily: the setting belongs to the state, old clients have it
    /// with the timeline.
    pub fn is_lazy(&self) -> bool {
        self.state.lazy_load_members || self.timeline.lazy_load_members
    }

    /// Whether all members of a room are wanted where the client is told of it anew.
    pub fn wants_all_members(&self) -> bool {
        !self.is_lazy() && self.state.has_type("m.room.member")
    }

    /// Whether members are sent again that the client knows.
    pub fn is_redundant(&self) -> bool {
        self.state.include_redundant_members || self.timeline.include_redundant_members
    }
}

impl EventFilter {
    /// Whether anything in a room can pass.
    pub fn has_room(&self, room: &RoomId) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.contains(room)) && !self.not_rooms.contains(room)
    }

    /// Whether an event type passes.
    pub fn has_type(&self, kind: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.has(kind)) && !self.not_types.has(kind)
    }

    /// Whether a sender passes.
    pub fn has_sender(&self, sender: &UserId) -> bool {
        let is_wanted = self
            .senders
            .as_ref()
            .is_none_or(|senders| senders.contains(sender));
        is_wanted && !self.not_senders.contains(sender)
    }

    /// Whether an event of a room that passes is wanted.
    pub fn has_event(&self, event: &Event) -> bool {
        self.has_type(event.pdu.kind())
            && self.has_sender(event.pdu.sender())
            && self
                .contains_url
                .is_none_or(|wanted| wanted == has_url(event.pdu.content()))
            && self.has_relation(event)
    }

    fn has_relation(&self, event: &Event) -> bool {
        if self.rel_types.is_none() && self.not_rel_types.is_empty() {
            return true;
        }
        let relation = Relation::of_content(event.pdu.content());
        let is_in = |list: &HashSet<String>| {
            relation
                .as_ref()
                .is_some_and(|relation| list.contains(&relation.rel_type))
        };
        self.rel_types.as_ref().is_none_or(is_in) && !is_in(&self.not_rel_types)
    }
}

/// Whether the content has a `url` that is a string.
fn has_url(content: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Content {
        url: Option<serde_json::Value>,
    }
    let content: Option<Content> = serde_json::from_slice(content).ok();
    content
        .and_then(|content| content.url)
        .is_some_and(|url| url.is_string())
}

/// Whether a text fits a pattern in which `*` stands for any sequence of characters. No two of them stand side by side, so
/// that it costs no more than the text is long, however long the pattern is.
fn matches(pattern: &str, text: &str) -> bool {
    if pattern.len() > 2 * text.len() + 1 {
        return false;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The fields that `event_fields` leaves of an event. Fields that are needed to place the event at
/// all are kept: a server may send more than was asked for.
pub fn cut(event: &serde_json::Value, fields: &Fields) -> serde_json::Value {
    let mut out = serde_json::Map::new();
    for always in ["type", "event_id"] {
        if let Some(value) = event.get(always) {
            out.insert(always.to_owned(), value.clone());
        }
    }
    for path in &fields.0 {
        copy(event, &mut out, path);
    }
    serde_json::Value::Object(out)
}

fn copy(from: &serde_json::Value, to: &mut serde_json::Map<String, serde_json::Value>, path: &[String]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let Some(value) = from.get(first) else { return };
    if rest.is_empty() {
        to.insert(first.clone(), value.clone());
        return;
    }
    let inner = to.entry(first.clone()).or_insert_with(|| serde_json::json!({}));
    if let Some(inner) = inner.as_object_mut() {
        copy(value, inner, rest);
    }
}

/// Splits a dot-separated path, in which a backslash keeps the next dot or backslash as it is.
fn split_path(path: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = path.chars();
    while let Some(char) = chars.next() {
        let last = parts.len() - 1;
        match char {
            '.' => parts.push(String::new()),
            '\\' => match chars.next() {
                Some(escaped @ ('.' | '\\')) => parts[last].push(escaped),
                Some(other) => parts[last].extend(['\\', other]),
                None => parts[last].push('\\'),
            },
            other => parts[last].push(other),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.message", true),
            ("m.room.*", "m.roo", false),
            ("*", "", true),
            ("*", "anything", true),
            ("*.message", "m.room.message", true),
            ("*.message", "m.room.message.x", false),
            ("m.*.message", "m.room.message", true),
            ("m.*.message", "m.message", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*a*", "a", true),
            ("*a*b*", "a", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn long_lists_are_read_and_many_wildcards_are_refused() {
        let types = |count: usize, star: &str| {
            let types: Vec<String> = (0..count).map(|at| format!("org.example.t{at}{star}")).collect();
            serde_json::from_value::<EventFilter>(json!({ "types": types, "not_types": ["*.t7*"] }))
        };
        let filter = types(5_000, "").expect("names are looked up at once");
        assert!(filter.has_type("org.example.t4999") && !filter.has_type("org.example.t5000"));
        assert!(!filter.has_type("org.example.t77"));
        let filter = types(WILDCARDS_MAX, ".*").expect("so many");
        assert!(filter.has_type("org.example.t99.x") && !filter.has_type("org.example.t99"));
        assert!(types(WILDCARDS_MAX + 1, ".*").is_err());
        for kind in ["rooms", "not_rooms"] {
            let rooms: Vec<String> = (0..5_000).map(|at| format!("!r{at}:x")).collect();
            let filter: EventFilter = serde_json::from_value(json!({ kind: rooms })).unwrap();
            assert_eq!(filter.has_room(room_id!("!r4999:x")), kind == "rooms");
            assert_eq!(filter.has_room(room_id!("!other:x")), kind == "not_rooms");
        }
        let stars = "*".repeat(10_000);
        let patterns: Patterns = serde_json::from_value(json!([format!("a{stars}b"), stars])).unwrap();
        assert_eq!(patterns.wild, BTreeSet::from(["*".to_owned(), "a*b".to_owned()]));
        let fields = |count: usize| {
            let fields: Vec<String> = (0..count).map(|at| format!("content.f{at}")).collect();
            Filter::from_value(json!({ "event_fields": fields }))
        };
        assert!(fields(FIELDS_MAX).is_ok() && fields(FIELDS_MAX + 1).is_err());
    }

    #[test]
    fn lists() {
        let filter: EventFilter = serde_json::from_value(json!({
            "types": ["m.room.*"], "not_types": ["m.room.topic"],
            "senders": ["@a:x", "@b:x"], "not_senders": ["@b:x"],
            "rooms": ["!r:x"], "not_rooms": ["!s:x"],
        }))
        .unwrap();
        assert!(
            filter.has_type("m.room.name") && !filter.has_type("m.room.topic") && !filter.has_type("m.x")
        );
        assert!(filter.has_sender(user_id!("@a:x")) && !filter.has_sender(user_id!("@b:x")));
        assert!(!filter.has_sender(user_id!("@c:x")));
        assert!(filter.has_room(room_id!("!r:x")) && !filter.has_room(room_id!("!s:x")));
        let none: EventFilter = serde_json::from_value(json!({ "types": [] })).unwrap();
        assert!(!none.has_type("m.room.name"), "an empty list lets nothing pass");
    }

    #[test]
    fn limits() {
        let limit = |value: serde_json::Value| {
            Filter::from_value(json!({ "room": { "timeline": value } }))
                .unwrap()
                .room
                .timeline_limit()
        };
        assert_eq!(limit(json!({})), 10);
        assert_eq!(limit(json!({ "limit": 3 })), 3);
        assert_eq!(limit(json!({ "limit": 0 })), 0);
        assert_eq!(limit(json!({ "limit": 100_000 })), 100);
        assert!(Filter::parse("{\"room\": 7}").is_err());
        assert!(Filter::parse("{\"event_format\": \"other\"}").is_err());
        assert!(Filter::parse("nothing").is_err());
        assert!(Filter::parse("{\"room\": {\"timeline\": {\"rel_types\": 7}}}").is_err());
    }

    #[test]
    fn what_is_null_is_not_there() {
        let filter = Filter::from_value(json!({
            "event_fields": null, "event_format": null, "presence": null, "account_data": null,
            "room": { "not_rooms": null, "include_leave": null, "ephemeral": null,
                "state": { "not_types": null, "lazy_load_members": null, "limit": null } },
        }))
        .unwrap();
        assert!(filter.room.state.has_type("m.room.name") && !filter.room.is_lazy());
        assert_eq!(filter.event_format, EventFormat::Client);
    }

    #[test]
    fn urls() {
        assert!(has_url(br#"{"url":"mxc://a/b"}"#));
        assert!(!has_url(br#"{"url":7}"#));
        assert!(!has_url(br#"{"body":"url"}"#));
    }

    #[test]
    fn fields() {
        let event = json!({"type": "t", "event_id": "$e", "sender": "@a:x", "content": {"body": "b", "a.b": 1, "c": 2}});
        let fields = json!(["content.body", "content.a\\.b", "nothing.there"]);
        let fields: Fields = serde_json::from_value(fields).unwrap();
        let expected = json!({"type": "t", "event_id": "$e", "content": {"body": "b", "a.b": 1}});
        assert_eq!(cut(&event, &fields), expected);
    }
}
