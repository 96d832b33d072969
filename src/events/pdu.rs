use bytes::Bytes;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use sha2::{Digest as _, Sha256};

use crate::json::{get, members, write_string};
use crate::limits::EVENT_MAX_BYTES;
use crate::pdu_read::{Parts, explicit_id, required_text};
use crate::redact::{write_redacted_event, write_without};
use crate::{Error, KeyPair, Layout, Rules, base64_encode, canonical};

/// An event as servers exchange and store it: canonical JSON without `unsigned`, and what was read from it.
#[derive(Clone, Debug)]
pub struct Pdu {
    /// The event's id.
    pub event_id: OwnedEventId,
    /// The event in canonical JSON.
    pub json: Bytes,
    /// Where the parts of the event lie in `json`.
    pub layout: Layout,
    pub(crate) fields: Fields,
}

/// What is read from an event's JSON.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    pub kind: Box<str>,
    pub state_key: Option<Box<str>>,
    pub redacts: Option<OwnedEventId>,
    pub origin_server_ts: u64,
    pub depth: u64,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
}

impl Pdu {
    /// Reads an event from outside: brings it into canonical form, takes `unsigned` away, checks form and size, finds its id. Hashes and
    /// signatures are not checked here.
    pub fn parse(rules: &Rules, text: &[u8]) -> Result<Pdu, Error> {
        // Before the work of reading it; `unsigned` of others may be large, but not without bound.
        check_size(
            "The event with its unsigned data",
            text.len(),
            4 * EVENT_MAX_BYTES,
        )?;
        let canonical = canonical::canonicalize(text, rules.strict_json())?;
        if !canonical.starts_with(b"{") {
            return Err(Error::Format("it is not a JSON object".to_owned()));
        }
        let mut json = canonical.into_owned();
        if get(&json, "unsigned").is_some() {
            let mut out = Vec::with_capacity(json.len());
            write_without(&mut out, &json, &[b"unsigned"]);
            json = out;
        }
        check_size("The event", json.len(), EVENT_MAX_BYTES)?;
        Pdu::read(rules, None, json.into())
    }

    /// Reads an event that this server stored: it is known to be canonical and to have this id.
    pub fn from_stored(rules: &Rules, event_id: OwnedEventId, json: Bytes) -> Result<Pdu, Error> {
        Pdu::read(rules, Some(event_id), json)
    }

    fn read(rules: &Rules, event_id: Option<OwnedEventId>, json: Bytes) -> Result<Pdu, Error> {
        let parts = Parts::find(&json);
        let layout = parts.layout(rules, &json);
        let kind = required_text(rules, &json, layout.kind, "type")?;
        let event_id = match event_id {
            Some(event_id) => event_id,
            None if rules.explicit_event_ids() => explicit_id(rules, parts.event_id)?,
            None => rules.event_id_of_hash(&reference_hash(rules, &kind, &json))?,
        };
        let fields = parts.fields(rules, &json, &layout, kind.into(), &event_id)?;
        Ok(Pdu {
            event_id,
            json,
            layout,
            fields,
        })
    }

    /// The room the event is in.
    pub fn room_id(&self) -> &RoomId {
        &self.fields.room_id
    }

    /// Who sent the event.
    pub fn sender(&self) -> &UserId {
        &self.fields.sender
    }

    /// The event's type.
    pub fn kind(&self) -> &str {
        &self.fields.kind
    }

    /// The state key, of state events only.
    pub fn state_key(&self) -> Option<&str> {
        self.fields.state_key.as_deref()
    }

    /// The content, a canonical JSON object.
    pub fn content(&self) -> &[u8] {
        self.layout.content.of(&self.json).unwrap_or(b"{}")
    }

    /// When the event was made by its server's clock, in milliseconds of Unix time.
    pub fn origin_server_ts(&self) -> u64 {
        self.fields.origin_server_ts
    }

    /// One more than the largest depth of the previous events.
    pub fn depth(&self) -> u64 {
        self.fields.depth
    }

    /// The events this one follows.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.fields.prev_events
    }

    /// The state events that allow this one.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.fields.auth_events
    }

    /// The event that this redaction redacts.
    pub fn redacts(&self) -> Option<&EventId> {
        self.fields.redacts.as_deref()
    }

    /// The reference hash.
    pub fn reference_hash(&self, rules: &Rules) -> [u8; 32] {
        reference_hash(rules, self.kind(), &self.json)
    }

    /// What signatures on this event cover.
    pub fn signed_text(&self, rules: &Rules) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.json.len());
        write_redacted_event(&mut text, rules, self.kind(), &self.json, false);
        text
    }

    /// The event with one more signature, of `server`; a former signature with the same key is replaced.
    pub fn countersign(&self, rules: &Rules, key: &KeyPair, server: &ServerName) -> Result<Pdu, Error> {
        let signature = base64_encode(&key.sign(&self.signed_text(rules)));
        self.with_signature(rules, server, key.key_id(), signature)
    }

    /// The event with one more signature, which `server` made of it with a key; a former one with the same key is replaced.
    pub fn with_signature(
        &self,
        rules: &Rules,
        server: &ServerName,
        key_id: &str,
        signature: String,
    ) -> Result<Pdu, Error> {
        use serde_json::{Map, Value};
        let wrong = || Error::Format("`signatures` is not an object of objects".to_owned());
        let mut signatures: Map<String, Value> = match get(&self.json, "signatures") {
            Some(text) => serde_json::from_slice(text).map_err(|_| wrong())?,
            None => Map::new(),
        };
        signatures
            .entry(server.as_str())
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut()
            .ok_or_else(wrong)?
            .insert(key_id.to_owned(), Value::String(signature));
        let signatures = canonical::to_bytes(&Value::Object(signatures), false)?;
        let mut json = Vec::with_capacity(self.json.len() + 160);
        write_with(&mut json, &self.json, "signatures", &signatures);
        check_size("The event", json.len(), EVENT_MAX_BYTES)?;
        Pdu::from_stored(rules, self.event_id.clone(), json.into())
    }
}

/// Writes a canonical object with one member set.
pub(crate) fn write_with(out: &mut Vec<u8>, object: &[u8], key: &str, value: &[u8]) {
    let mut pending = true;
    let put = |out: &mut Vec<u8>, key: &[u8], value: &[u8]| {
        out.push(if out.is_empty() { b'{' } else { b',' });
        out.push(b'"');
        out.extend_from_slice(key);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value);
    };
    for member in members(object) {
        if pending && member.key >= key.as_bytes() {
            put(out, key.as_bytes(), value);
            pending = false;
        }
        if member.key != key.as_bytes() {
            put(out, member.key, member.value);
        }
    }
    if pending {
        put(out, key.as_bytes(), value);
    }
    out.push(b'}');
}

/// Refuses what is too long.
pub(crate) fn check_size(what: &'static str, actual: usize, max: usize) -> Result<(), Error> {
    if actual > max {
        Err(Error::TooLarge { what, max, actual })
    } else {
        Ok(())
    }
}

/// The hash that names an event: over its redacted form without signatures.
pub(crate) fn reference_hash(rules: &Rules, kind: &str, json: &[u8]) -> [u8; 32] {
    let mut redacted = Vec::with_capacity(json.len());
    write_redacted_event(&mut redacted, rules, kind, json, false);
    Sha256::digest(&redacted).into()
}

/// The hash that tells whether an event was changed: over everything but hashes, signatures and unsigned data.
pub(crate) fn content_hash(json: &[u8]) -> [u8; 32] {
    let mut covered = Vec::with_capacity(json.len());
    write_without(&mut covered, json, &[b"hashes", b"signatures", b"unsigned"]);
    Sha256::digest(&covered).into()
}

/// Writes `"key":"value"` with a leading comma.
pub(crate) fn write_text_member(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    write_string(out, value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::rules;

    fn event() -> Value {
        json!({"auth_events": ["$a"], "content": {"body": "x"}, "depth": 3, "hashes": {"sha256": "x"}, "origin_server_ts": 5, "prev_events": ["$p"],
            "room_id": "!r:s", "sender": "@a:s", "signatures": {"s": {"ed25519:1": "y"}}, "type": "m.room.message"})
    }

    fn parse(version: &str, event: &Value) -> Result<Pdu, Error> {
        Pdu::parse(
            rules(&version.try_into().unwrap()).unwrap(),
            event.to_string().as_bytes(),
        )
    }

    #[test]
    fn what_is_read() {
        let mut event = event();
        event["unsigned"] = json!({"age": 1});
        event["state_key"] = json!("k\"");
        let pdu = parse("10", &event).unwrap();
        assert_eq!(
            (pdu.room_id().as_str(), pdu.sender().as_str(), pdu.kind()),
            ("!r:s", "@a:s", "m.room.message")
        );
        assert_eq!(
            (
                pdu.state_key(),
                pdu.content(),
                pdu.origin_server_ts(),
                pdu.depth()
            ),
            (Some("k\""), &br#"{"body":"x"}"#[..], 5, 3)
        );
        assert_eq!(
            (pdu.prev_events()[0].as_str(), pdu.auth_events()[0].as_str()),
            ("$p", "$a")
        );
        assert!(get(&pdu.json, "unsigned").is_none());
        assert_eq!(pdu.layout.state_key.of(&pdu.json), Some(&br#""k\"""#[..]));
        assert_eq!(pdu.layout.origin_server_ts.of(&pdu.json), Some(&b"5"[..]));
    }

    #[test]
    fn old_versions_count_characters() {
        for (length, version, taken) in [(255, "10", true), (256, "10", false), (255, "11", false)] {
            let mut event = event();
            event["state_key"] = json!("ü".repeat(length));
            assert_eq!(parse(version, &event).is_ok(), taken, "{length} in {version}");
        }
    }

    #[test]
    fn depths_have_a_limit() {
        for (depth, version, taken) in [
            ((1_u64 << 63) - 1, "5", true),
            (1 << 63, "5", false),
            (u64::MAX, "5", false),
            ((1 << 53) - 1, "6", true),
            (1 << 53, "6", false),
        ] {
            let mut event = event();
            event["depth"] = json!(depth);
            assert_eq!(parse(version, &event).is_ok(), taken, "{depth} in {version}");
        }
    }

    #[test]
    fn what_is_refused() {
        let check = |name: &str, value: Value, expected: &str| {
            let mut event = event();
            if value.is_null() {
                event.as_object_mut().unwrap().remove(name);
            } else {
                event[name] = value;
            }
            assert_eq!(parse("11", &event).unwrap_err().to_string(), expected);
        };
        check("type", Value::Null, "The event is malformed: `type` is missing");
        check("type", json!(1), "The event is malformed: `type` is not a string");
        check(
            "type",
            json!("x".repeat(256)),
            "type is 256 bytes long, but may have at most 255",
        );
        check(
            "state_key",
            json!("ü".repeat(128)),
            "state_key is 256 bytes long, but may have at most 255",
        );
        check(
            "content",
            json!([]),
            "The event is malformed: `content` is not an object",
        );
        check(
            "depth",
            json!(-1),
            "The event is malformed: `depth` is not a non-negative integer",
        );
        check(
            "depth",
            json!(1.5),
            "The JSON is not acceptable: the number 1.5 is not an integer",
        );
        check(
            "origin_server_ts",
            Value::Null,
            "The event is malformed: `origin_server_ts` is missing",
        );
        check(
            "prev_events",
            json!([["$a:b", {}]]),
            "The event is malformed: `prev_events` has an entry that is not a reference to an event",
        );
        check(
            "prev_events",
            json!(vec!["$a"; 21]),
            "The event is malformed: `prev_events` has more than 20 entries",
        );
        check(
            "auth_events",
            json!({}),
            "The event is malformed: `auth_events` is not an array",
        );
        check(
            "auth_events",
            json!(vec!["$a"; 11]),
            "The event is malformed: `auth_events` has more than 10 entries",
        );
        check(
            "content",
            json!({"body": "x".repeat(65_536)}),
            "The event is 65750 bytes long, but may have at most 65536",
        );
        assert!(parse("1", &event()).is_err());
        assert!(Pdu::parse(&crate::Rules::all()[9], b"[]").is_err());
    }

    #[test]
    fn redacts_lies_where_the_version_has_it() {
        let mut event = event();
        event["type"] = json!("m.room.redaction");
        event["redacts"] = json!("$top");
        event["content"]["redacts"] = json!("$inner");
        assert_eq!(parse("10", &event).unwrap().redacts().unwrap(), "$top");
        let pdu = parse("11", &event).unwrap();
        assert_eq!(pdu.redacts().unwrap(), "$inner");
        assert_eq!(pdu.layout.redacts.of(&pdu.json), Some(&b"\"$inner\""[..]));
    }

    #[test]
    fn setting_a_member_keeps_the_order() {
        let check = |object: &str, expected: &str| {
            let mut out = Vec::new();
            write_with(&mut out, object.as_bytes(), "m", b"1");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check("{}", r#"{"m":1}"#);
        check(r#"{"a":2}"#, r#"{"a":2,"m":1}"#);
        check(r#"{"a":2,"m":3,"z":4}"#, r#"{"a":2,"m":1,"z":4}"#);
        check(r#"{"z":4}"#, r#"{"m":1,"z":4}"#);
    }

    proptest! {
        #![proptest_config(crate::oracle::config(1))]

        #[test]
        fn reading_never_panics(bytes in any::<Vec<u8>>(), cut in 0_usize..400, byte in any::<u8>(), at in 0_usize..400) {
            for rules in Rules::all() {
                let _ = Pdu::parse(rules, &bytes);
                let mut text = event().to_string().into_bytes();
                if let Some(place) = text.get_mut(at) { *place = byte; }
                text.truncate(text.len().max(1) - cut.min(text.len() - 1) / 8);
                let _ = Pdu::parse(rules, &text);
                let _ = Pdu::from_stored(rules, EventId::parse("$x:y").unwrap(), text.into());
            }
        }
    }
}
