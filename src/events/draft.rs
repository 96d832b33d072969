use ruma::{EventId, OwnedEventId, RoomId, ServerName, UserId};
use sha2::{Digest as _, Sha256};

use crate::json::{get, write_integer, write_string};
use crate::keys::KEY_VERSION_MAX_BYTES;
use crate::limits::{AUTH_EVENTS_MAX, EVENT_MAX_BYTES, FIELD_MAX_BYTES, PREV_EVENTS_MAX};
use crate::pdu::{Fields, check_size, write_text_member, write_with};
use crate::redact::write_redacted_content;
use crate::state_key::check_state_key;
use crate::{Error, KeyPair, Layout, Pdu, Rules, Span, base64_encode, canonical};

/// What an event of this server shall say.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The room; `None` for a create event that names its room itself (room version 12 and later).
    pub room_id: Option<&'a RoomId>,
    /// Who sends it.
    pub sender: &'a UserId,
    /// The event's type.
    pub kind: &'a str,
    /// The state key of a state event.
    pub state_key: Option<&'a str>,
    /// The content, an object in canonical JSON.
    pub content: &'a [u8],
    /// Milliseconds of Unix time.
    pub origin_server_ts: u64,
    /// One more than the largest depth of the previous events.
    pub depth: u64,
    /// The events this one follows.
    pub prev_events: &'a [OwnedEventId],
    /// The state events that allow this one.
    pub auth_events: &'a [OwnedEventId],
    /// What an `m.room.redaction` redacts; written at the top level or into the content, as the room version has it.
    pub redacts: Option<&'a EventId>,
}

impl<'a> Draft<'a> {
    /// What it redacts, if it is a redaction and the room version has it in the content (`true`) or at the top level (`false`).
    fn redacts(&self, rules: &Rules, in_content: bool) -> Option<&'a EventId> {
        self.redacts.filter(|_| {
            self.kind == "m.room.redaction" && rules.redaction.content_field_redacts == in_content
        })
    }
}

/// An event that is complete but for its signature: numbered and ordered things may already refer to it, while another thread signs it.
#[derive(Debug)]
pub struct Unsigned {
    /// The event's id.
    pub event_id: OwnedEventId,
    text: Vec<u8>,
    signed_text: Vec<u8>,
    signatures_at: usize,
    layout: Layout,
    fields: Fields,
}

/// Makes an event. `random_id` is the opaque part of the event's id in room versions 1 and 2, which have no other way to name it.
pub fn build(rules: &Rules, draft: &Draft<'_>, random_id: Option<&str>) -> Result<Unsigned, Error> {
    build_with_references(rules, draft, random_id, &|_| None)
}

/// Makes an event, with the reference hashes of the events it refers to, which room versions 1 and 2 write beside their ids. Servers do not
/// rely on them.
pub fn build_with_references(
    rules: &Rules,
    draft: &Draft<'_>,
    random_id: Option<&str>,
    hash_of: &dyn Fn(&EventId) -> Option<[u8; 32]>,
) -> Result<Unsigned, Error> {
    check(rules, draft)?;
    let mut owned_content = Vec::new();
    let content = content_with_redacts(rules, draft, &mut owned_content);
    let mut layout = Layout::default();

    // The members before `hashes`, then those after it. Both begin so that they can be joined with and without what stands between them.
    let mut head = Vec::with_capacity(content.len() + 800);
    head.extend_from_slice(b"{\"auth_events\":");
    write_references(&mut head, rules, draft.auth_events, hash_of);
    head.extend_from_slice(b",\"content\":");
    let content_at = head.len();
    head.extend_from_slice(content);
    layout.content = Span::new(content_at, content.len());
    let content_end = head.len();
    head.extend_from_slice(b",\"depth\":");
    write_number(&mut head, draft.depth);
    let explicit_id = explicit_id(rules, draft, random_id)?;
    if let Some(id) = &explicit_id {
        write_text_member(&mut head, "event_id", id.as_str());
    }

    let tail = Tail::write(rules, draft, hash_of);
    let content_hash: [u8; 32] = Sha256::new()
        .chain_update(&head)
        .chain_update(&tail.text)
        .finalize()
        .into();
    let mut hashes = Vec::with_capacity(80);
    hashes.extend_from_slice(b",\"hashes\":{\"sha256\":\"");
    hashes.extend_from_slice(base64_encode(&content_hash).as_bytes());
    hashes.extend_from_slice(b"\"}");

    let mut signed_text = Vec::with_capacity(head.len() + hashes.len() + tail.text.len());
    signed_text.extend_from_slice(&head[..content_at]);
    write_redacted_content(&mut signed_text, &rules.redaction, draft.kind, content);
    signed_text.extend_from_slice(&head[content_end..]);
    signed_text.extend_from_slice(&hashes);
    signed_text.extend_from_slice(&tail.text[..tail.redacts_at]);
    signed_text.extend_from_slice(&tail.text[tail.redacts_end..]);
    let event_id = match explicit_id {
        Some(id) => id,
        None => rules.event_id_of_hash(&Sha256::digest(&signed_text).into())?,
    };

    let mut text = head;
    text.extend_from_slice(&hashes);
    let base = text.len();
    text.extend_from_slice(&tail.text);
    tail.place(&mut layout, base);
    if rules.redaction.content_field_redacts && draft.kind == "m.room.redaction" {
        let inner = crate::json::members(content).find(|member| member.key == b"redacts");
        layout.redacts = inner.map_or(Span::default(), |inner| {
            Span::new(content_at + inner.start, inner.value.len())
        });
    }
    check_size(
        "The event",
        text.len() + signature_bytes(draft.sender.server_name()),
        EVENT_MAX_BYTES,
    )?;
    let fields = fields(rules, draft, &event_id, &text, &layout)?;
    Ok(Unsigned {
        event_id,
        text,
        signed_text,
        signatures_at: base + tail.signatures_at,
        layout,
        fields,
    })
}

impl Unsigned {
    /// The room the event is in; of a create event in room version 12 only known now.
    pub fn room_id(&self) -> &RoomId {
        &self.fields.room_id
    }

    /// The hash by which events of room versions 1 and 2 refer to this one, as [`Pdu::reference_hash`] of the signed event.
    pub fn reference_hash(&self) -> [u8; 32] {
        Sha256::digest(&self.signed_text).into()
    }

    /// Signs the event as `server`, the sender's.
    pub fn sign(self, key: &KeyPair, server: &ServerName) -> Pdu {
        let signature = base64_encode(&key.sign(&self.signed_text));
        let mut signatures = Vec::with_capacity(220);
        signatures.extend_from_slice(b",\"signatures\":{");
        write_string(&mut signatures, server.as_str());
        signatures.extend_from_slice(b":{");
        write_string(&mut signatures, key.key_id());
        signatures.push(b':');
        write_string(&mut signatures, &signature);
        signatures.extend_from_slice(b"}}");
        let mut json = Vec::with_capacity(self.text.len() + signatures.len());
        json.extend_from_slice(&self.text[..self.signatures_at]);
        json.extend_from_slice(&signatures);
        json.extend_from_slice(&self.text[self.signatures_at..]);
        let moved = |span: Span| span.moved(self.signatures_at, signatures.len());
        let layout = Layout {
            state_key: moved(self.layout.state_key),
            kind: moved(self.layout.kind),
            ..self.layout
        };
        Pdu {
            event_id: self.event_id,
            json: json.into(),
            layout,
            fields: self.fields,
        }
    }
}

/// The members after `hashes`.
struct Tail {
    text: Vec<u8>,
    origin_server_ts: Span,
    redacts_at: usize,
    redacts_end: usize,
    redacts: Span,
    sender: Span,
    signatures_at: usize,
    state_key: Span,
    kind: Span,
}

impl Tail {
    fn write(rules: &Rules, draft: &Draft<'_>, hash_of: &dyn Fn(&EventId) -> Option<[u8; 32]>) -> Tail {
        let mut text = Vec::with_capacity(512);
        text.extend_from_slice(b",\"origin_server_ts\":");
        let at = text.len();
        write_number(&mut text, draft.origin_server_ts);
        let origin_server_ts = Span::new(at, text.len() - at);
        text.extend_from_slice(b",\"prev_events\":");
        write_references(&mut text, rules, draft.prev_events, hash_of);
        let redacts_at = text.len();
        let mut redacts = Span::default();
        if let Some(redacted) = draft.redacts(rules, false) {
            redacts = write_spanned(&mut text, "redacts", redacted.as_str());
        }
        let redacts_end = text.len();
        if let Some(room_id) = draft.room_id {
            write_text_member(&mut text, "room_id", room_id.as_str());
        }
        let sender = write_spanned(&mut text, "sender", draft.sender.as_str());
        let signatures_at = text.len();
        let state_key = draft
            .state_key
            .map_or(Span::default(), |key| write_spanned(&mut text, "state_key", key));
        let kind = write_spanned(&mut text, "type", draft.kind);
        text.push(b'}');
        Tail {
            text,
            origin_server_ts,
            redacts_at,
            redacts_end,
            redacts,
            sender,
            signatures_at,
            state_key,
            kind,
        }
    }

    fn place(&self, layout: &mut Layout, base: usize) {
        let placed = |span: Span| span.moved(0, base);
        layout.origin_server_ts = placed(self.origin_server_ts);
        layout.redacts = placed(self.redacts);
        layout.sender = placed(self.sender);
        layout.state_key = placed(self.state_key);
        layout.kind = placed(self.kind);
    }
}

fn write_spanned(out: &mut Vec<u8>, key: &str, value: &str) -> Span {
    let start = out.len() + key.len() + 4;
    write_text_member(out, key, value);
    Span::new(start, out.len() - start)
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    write_integer(out, i64::try_from(number).unwrap_or(i64::MAX));
}

fn write_references(
    out: &mut Vec<u8>,
    rules: &Rules,
    ids: &[OwnedEventId],
    hash_of: &dyn Fn(&EventId) -> Option<[u8; 32]>,
) {
    out.push(b'[');
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        if !rules.paired_references() {
            write_string(out, id.as_str());
            continue;
        }
        out.push(b'[');
        write_string(out, id.as_str());
        out.extend_from_slice(b",{");
        if let Some(hash) = hash_of(id) {
            out.extend_from_slice(b"\"sha256\":\"");
            out.extend_from_slice(base64_encode(&hash).as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b"}]");
    }
    out.push(b']');
}

/// The bytes that a signature will add.
fn signature_bytes(server: &ServerName) -> usize {
    r#","signatures":{"":{"ed25519:":""}}"#.len() + server.as_str().len() + KEY_VERSION_MAX_BYTES + 86
}

fn check(rules: &Rules, draft: &Draft<'_>) -> Result<(), Error> {
    check_size("The event's type", draft.kind.len(), FIELD_MAX_BYTES)?;
    if let Some(state_key) = draft.state_key {
        check_state_key(rules, state_key)?;
    }
    check_size("The sender", draft.sender.as_str().len(), FIELD_MAX_BYTES)?;
    check_size(
        "The room id",
        draft.room_id.map_or(0, |room| room.as_str().len()),
        FIELD_MAX_BYTES,
    )?;
    check_size("The content", draft.content.len(), EVENT_MAX_BYTES)?;
    if !draft.content.starts_with(b"{") || !canonical::is_canonical(draft.content, rules.strict_json()) {
        return Err(Error::Json(
            "the content is not an object in canonical form".to_owned(),
        ));
    }
    if draft.prev_events.len() > PREV_EVENTS_MAX || draft.auth_events.len() > AUTH_EVENTS_MAX {
        return Err(Error::Format(format!(
            "it refers to more than {PREV_EVENTS_MAX} previous or {AUTH_EVENTS_MAX} authorization events"
        )));
    }
    let nameless = draft.kind == "m.room.create" && rules.room_id_is_create_hash();
    if nameless != draft.room_id.is_none() {
        return Err(Error::Format(
            "exactly the create event of a room that it names has no `room_id`".to_owned(),
        ));
    }
    Ok(())
}

/// The content, with `redacts` in it where the room version wants it there.
fn content_with_redacts<'a>(rules: &Rules, draft: &Draft<'a>, owned: &'a mut Vec<u8>) -> &'a [u8] {
    let Some(redacts) = draft.redacts(rules, true) else {
        return draft.content;
    };
    let mut value = Vec::with_capacity(64);
    write_string(&mut value, redacts.as_str());
    if get(draft.content, "redacts") == Some(&value) {
        return draft.content;
    }
    write_with(owned, draft.content, "redacts", &value);
    owned
}

fn explicit_id(
    rules: &Rules,
    draft: &Draft<'_>,
    random_id: Option<&str>,
) -> Result<Option<OwnedEventId>, Error> {
    if !rules.explicit_event_ids() {
        return Ok(None);
    }
    let random_id = random_id
        .ok_or_else(|| Error::Format("this room version needs a random part for the event id".to_owned()))?;
    let id = format!("${random_id}:{}", draft.sender.server_name());
    check_size("The event id", id.len(), FIELD_MAX_BYTES)?;
    EventId::parse(&id)
        .map(Some)
        .map_err(|error| Error::Format(format!("the event id {id} cannot be used ({error})")))
}

fn fields(
    rules: &Rules,
    draft: &Draft<'_>,
    event_id: &EventId,
    text: &[u8],
    layout: &Layout,
) -> Result<Fields, Error> {
    let redacts = layout
        .redacts
        .of(text)
        .and_then(crate::json::string)
        .and_then(|id| EventId::parse(&*id).ok());
    Ok(Fields {
        room_id: match draft.room_id {
            Some(room_id) => room_id.to_owned(),
            None => rules.room_id_of_create(event_id)?,
        },
        sender: draft.sender.to_owned(),
        kind: draft.kind.into(),
        state_key: draft.state_key.map(Into::into),
        redacts: redacts.filter(|_| draft.kind == "m.room.redaction"),
        origin_server_ts: draft.origin_server_ts,
        depth: draft.depth,
        prev_events: draft.prev_events.to_vec(),
        auth_events: draft.auth_events.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;

    use super::*;
    use crate::rules;

    fn with<T>(
        version: &str,
        change: impl FnOnce(&mut Draft<'_>),
        then: impl FnOnce(Result<Unsigned, Error>) -> T,
    ) -> T {
        let rules = rules(&RoomVersionId::try_from(version).unwrap()).unwrap();
        let sender = UserId::parse("@a:s").unwrap();
        let room = RoomId::parse("!r:s").unwrap();
        let mut draft = Draft {
            room_id: Some(&room),
            sender: &sender,
            kind: "m.room.message",
            state_key: None,
            content: b"{}",
            origin_server_ts: 1,
            depth: 2,
            prev_events: &[],
            auth_events: &[],
            redacts: None,
        };
        change(&mut draft);
        then(build(rules, &draft, rules.explicit_event_ids().then_some("x")))
    }

    #[test]
    fn what_is_refused() {
        let check = |change: &dyn Fn(&mut Draft<'_>), expected: &str| {
            with("12", change, |result| {
                assert_eq!(result.unwrap_err().to_string(), expected)
            });
        };
        let long = Box::leak("x".repeat(256).into_boxed_str());
        let content = Box::leak(format!(r#"{{"body":"{}"}}"#, "x".repeat(65_300)).into_boxed_str());
        check(
            &|draft| draft.kind = long,
            "The event's type is 256 bytes long, but may have at most 255",
        );
        check(
            &|draft| draft.state_key = Some(long),
            "The state key is 256 bytes long, but may have at most 255",
        );
        check(
            &|draft| draft.content = content.as_bytes(),
            "The event is 65664 bytes long, but may have at most 65536",
        );
        check(
            &|draft| draft.content = b"{ }",
            "The JSON is not acceptable: the content is not an object in canonical form",
        );
        check(
            &|draft| draft.content = b"[]",
            "The JSON is not acceptable: the content is not an object in canonical form",
        );
        check(
            &|draft| draft.kind = "m.room.create",
            "The event is malformed: exactly the create event of a room that it names has no `room_id`",
        );
        check(
            &|draft| draft.room_id = None,
            "The event is malformed: exactly the create event of a room that it names has no `room_id`",
        );
    }

    #[test]
    fn the_create_event_names_the_room() {
        let create = |draft: &mut Draft<'_>| {
            draft.kind = "m.room.create";
            draft.state_key = Some("");
            draft.room_id = None;
        };
        with("12", create, |unsigned| {
            let unsigned = unsigned.unwrap();
            assert_eq!(
                unsigned.room_id().as_str().trim_start_matches('!'),
                unsigned.event_id.as_str().trim_start_matches('$')
            );
        });
    }

    #[test]
    fn redactions_say_what_they_redact_where_the_version_has_it() {
        let redacted = EventId::parse("$x").unwrap();
        let key = KeyPair::from_seed([1; 32], "a").unwrap();
        let server = ServerName::parse("s").unwrap();
        for (version, expected) in [("10", "{}"), ("11", r#"{"redacts":"$x"}"#)] {
            let change = |draft: &mut Draft<'_>| draft.kind = "m.room.redaction";
            let pdu = with(
                version,
                |draft| {
                    change(draft);
                    draft.redacts = Some(<&EventId>::try_from("$x").unwrap());
                },
                |unsigned| unsigned.unwrap().sign(&key, &server),
            );
            assert_eq!(std::str::from_utf8(pdu.content()).unwrap(), expected);
            assert_eq!(pdu.redacts(), Some(&*redacted));
        }
    }
}
