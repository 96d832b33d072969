//! What of an event is searched.

use hearth_rooms::{Event, Place, Relation, Room, Short};
use hearth_storage::EntityKey;
use serde::Deserialize;

use crate::Error;

/// The longest text of an event that is indexed, in bytes: all of it but for what is made to fill the index.
const TEXT_MAX_BYTES: usize = 32 << 10;

/// The bits of a time in milliseconds that count for the order; enough until the year 2248.
const TIME_BITS: u32 = 43;
/// The bits of the place in its room, for events of the same millisecond.
const PLACE_BITS: u32 = 64 - TIME_BITS;

/// Which event a document is of: its room and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EventKey {
    pub(crate) room: EntityKey,
    pub(crate) short: Short,
}

impl EventKey {
    /// The bytes in the index: room, number.
    pub(crate) fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..6].copy_from_slice(&self.room.to_bytes());
        bytes[6..].copy_from_slice(&self.short.to_be_bytes());
        bytes
    }

    /// A number that no other event of the same time has: room, and what is left of the number in it.
    pub(crate) fn tie(self) -> u64 {
        let [a, b, c, d, e, f] = self.room.to_bytes();
        let [.., g, h] = self.short.to_be_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Reads the bytes in the index.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 10] = bytes.try_into().ok()?;
        let (room, short) = bytes.split_at(6);
        Some(Self {
            room: EntityKey::from_bytes(room.try_into().ok()?)?,
            short: Short::from_be_bytes(short.try_into().ok()?),
        })
    }
}

/// What the index keeps of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) key: EventKey,
    /// The edit whose text it is.
    pub(crate) edit: Option<EventKey>,
    pub(crate) sender: String,
    /// Rises with the time, and within a millisecond with the place in the room.
    pub(crate) recent: u64,
    pub(crate) text: Text,
}

/// A text, and by which key it is searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// `content.body` of a message.
    Body(String),
    /// `content.name`.
    Name(String),
    /// `content.topic`.
    Topic(String),
}

impl Text {
    /// The text itself.
    pub(crate) fn into_string(self) -> String {
        match self {
            Self::Body(text) | Self::Name(text) | Self::Topic(text) => text,
        }
    }
}

/// Whether a room is encrypted now: then nothing of it is searched, also what was said in clear before.
pub(crate) fn is_encrypted(room: &Room) -> Result<bool, Error> {
    Ok(room.state("m.room.encryption", "")?.is_some())
}

impl Document {
    /// What there is to search in an event: nothing in one that is redacted or that no client is shown, and nothing
    /// in an edit, whose text is its event's.
    pub(crate) fn of(room: &Room, event: &Event) -> Result<Option<Self>, Error> {
        let edit = match event.pdu.kind() {
            "m.room.message" => room.latest_edit(event)?,
            _ => None,
        };
        Ok(Self::made(room, event, edit.as_deref()))
    }

    /// The same for an event that nobody has edited.
    pub(crate) fn unedited(room: &Room, event: &Event) -> Option<Self> {
        Self::made(room, event, None)
    }

    fn made(room: &Room, event: &Event, edit: Option<&Event>) -> Option<Self> {
        if event.is_redacted() || !event.is_visible_kind() || event.header.place == Place::default() {
            return None;
        }
        let content = event.pdu.content();
        let text = match (event.pdu.kind(), event.pdu.state_key()) {
            ("m.room.message", None) => {
                if Relation::of_content(content).is_some_and(|relation| relation.rel_type == "m.replace") {
                    return None;
                }
                let body = match edit {
                    Some(edit) => new_body(edit.pdu.content()),
                    None => member(content, "body"),
                };
                body.map(Text::Body)
            }
            ("m.room.name", Some("")) => member(content, "name").map(Text::Name),
            ("m.room.topic", Some("")) => topic(content).map(Text::Topic),
            _ => None,
        };
        let key_of = |event: &Event| EventKey {
            room: room.key(),
            short: event.short,
        };
        text.map(|text| Self {
            key: key_of(event),
            edit: edit.map(key_of),
            sender: event.pdu.sender().to_string(),
            recent: recent(event),
            text,
        })
    }
}

fn recent(event: &Event) -> u64 {
    let latest = (1 << TIME_BITS) - 1;
    let time = event.pdu.origin_server_ts().min(latest);
    let place = event.header.place.anchor & ((1 << PLACE_BITS) - 1);
    (time << PLACE_BITS) | place
}

/// A text member of a content.
fn member(content: &[u8], name: &str) -> Option<String> {
    if name == "body" {
        // Most documents are of messages: the rest of their content is passed over.
        #[derive(Deserialize)]
        struct Content<'a> {
            #[serde(borrow)]
            body: std::borrow::Cow<'a, str>,
        }
        let content: Content<'_> = serde_json::from_slice(content).ok()?;
        return Some(cut(&content.body));
    }
    let content: serde_json::Value = serde_json::from_slice(content).ok()?;
    content.get(name)?.as_str().map(cut)
}

fn new_body(content: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.new_content")]
        new_content: serde_json::Value,
    }
    let content: Content = serde_json::from_slice(content).ok()?;
    content.new_content.get("body")?.as_str().map(cut)
}

/// The topic, with its plain-text form under `m.topic`.
fn topic(content: &[u8]) -> Option<String> {
    let content: serde_json::Value = serde_json::from_slice(content).ok()?;
    let plain = content["m.topic"]["m.text"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|form| {
            let kind = form.get("mimetype").and_then(serde_json::Value::as_str);
            kind.is_none_or(|kind| kind == "text/plain")
        });
    let mut texts: Vec<&str> = content["topic"].as_str().into_iter().collect();
    texts.extend(
        plain
            .and_then(|form| form["body"].as_str())
            .filter(|body| !texts.contains(body)),
    );
    (!texts.is_empty()).then(|| cut(&texts.join("\n")))
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back() {
        let key = EventKey {
            room: EntityKey::from_bytes([1, 2, 3, 4, 5, 6]).expect("a key"),
            short: 77,
        };
        assert_eq!(EventKey::from_bytes(&key.to_bytes()), Some(key));
        assert_eq!(EventKey::from_bytes(b"short"), None);
    }

    #[test]
    fn contents_are_read_leniently() {
        assert_eq!(member(br#"{"body":"x"}"#, "body").as_deref(), Some("x"));
        assert_eq!(member(br#"{"body":7}"#, "body"), None);
        assert_eq!(
            new_body(br#"{"m.new_content":{"body":"y"}}"#).as_deref(),
            Some("y")
        );
        assert_eq!(new_body(br#"{"m.new_content":7}"#), None);
        for (content, expected) in [
            (r#"{"topic":"a"}"#, Some("a")),
            (r#"{"topic":"a","m.topic":{"m.text":[{"body":"a"}]}}"#, Some("a")),
            (
                r#"{"topic":"a","m.topic":{"m.text":[{"mimetype":"text/html","body":"<b>"},{"mimetype":"text/plain","body":"b"}]}}"#,
                Some("a\nb"),
            ),
            (r#"{"m.topic":{"m.text":[{"body":"b"}]}}"#, Some("b")),
            (r#"{"topic":7,"m.topic":7}"#, None),
        ] {
            assert_eq!(topic(content.as_bytes()).as_deref(), expected, "{content}");
        }
        let long = "ä".repeat(TEXT_MAX_BYTES);
        assert!(cut(&long).len() <= TEXT_MAX_BYTES);
    }
}
