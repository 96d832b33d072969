//! An event as clients know it (client-server API, "Room event format"): the stored bytes, with
//! event_id, room_id and unsigned added, and nothing parsed that need not be.

use std::sync::Arc;

use hearth_events::limits::JSON_DEPTH_MAX;
use serde_json::value::RawValue;

use crate::{Bundle, Error, Event, Room, Viewer};

/// The shape in which events go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// As in `/messages`, `/context`, `/event`.
    #[default]
    Client,
    /// As in `/sync`: without room_id.
    Sync,
    /// The PDU itself.
    Federation,
}

/// How events are rendered for one reader.
pub struct Rendering<'a> {
    /// The shape.
    pub format: Format,
    /// The reading device, for transaction ids.
    pub device: Option<&'a str>,
    /// Whether related events are bundled.
    pub bundle: bool,
}

impl Default for Rendering<'_> {
    fn default() -> Self {
        Self {
            format: Format::Client,
            device: None,
            bundle: true,
        }
    }
}

/// How many levels a member of `unsigned` may have, and one of `m.relations` there: what is added to an event makes it no
/// deeper than events are. Neither this server nor many clients could read it otherwise, whoever it was that sent a deep one.
const IN_UNSIGNED: usize = JSON_DEPTH_MAX - 2;
const IN_RELATIONS: usize = IN_UNSIGNED - 1;

impl Room {
    /// Renders an event for the viewer.
    pub fn render(
        &self,
        event: &Event,
        viewer: &mut Viewer,
        rendering: &Rendering<'_>,
    ) -> Result<Box<RawValue>, Error> {
        let bundle = match rendering.bundle {
            true => self.bundle(event, viewer)?,
            false => Bundle::default(),
        };
        let text = self.client_json(event, Some(viewer), rendering, &bundle)?;
        RawValue::from_string(text).map_err(|_| Error::Damaged("event"))
    }

    /// Renders several events for the viewer.
    pub fn render_all(
        &self,
        events: &[Arc<Event>],
        viewer: &mut Viewer,
        rendering: &Rendering<'_>,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        events
            .iter()
            .map(|event| self.render(event, viewer, rendering))
            .collect()
    }

    fn client_json(
        &self,
        event: &Event,
        mut viewer: Option<&mut Viewer>,
        rendering: &Rendering<'_>,
        bundle: &Bundle,
    ) -> Result<String, Error> {
        let event = &*self.shown_to(event, viewer.as_deref_mut())?;
        let pdu = &event.pdu;
        let unsigned = self.unsigned(event, viewer, rendering, bundle)?;
        if rendering.format == Format::Federation {
            return Ok(with_member(as_str(&pdu.json)?, "unsigned", &unsigned));
        }
        let mut out = String::with_capacity(pdu.json.len() + 200);
        out.push_str("{\"content\":");
        push_content(&mut out, event)?;
        push_string(&mut out, ",\"event_id\":", event.id().as_str());
        out.push_str(",\"origin_server_ts\":");
        out.push_str(&pdu.origin_server_ts().to_string());
        if let Some(redacts) = pdu.redacts() {
            push_string(&mut out, ",\"redacts\":", redacts.as_str());
        }
        if rendering.format != Format::Sync {
            push_string(&mut out, ",\"room_id\":", self.id().as_str());
        }
        let raw = [
            (",\"sender\":", pdu.layout.sender),
            (",\"state_key\":", pdu.layout.state_key),
            (",\"type\":", pdu.layout.kind),
        ];
        for (name, span) in raw {
            if let Some(value) = span.of(&pdu.json) {
                out.push_str(name);
                out.push_str(as_str(value)?);
            }
        }
        out.push_str(",\"unsigned\":");
        out.push_str(&unsigned);
        out.push('}');
        Ok(out)
    }

    /// The `unsigned` object: age, transaction_id, prev_content, replaces_state,
    /// redacted_because, membership and m.relations.
    fn unsigned(
        &self,
        event: &Event,
        mut viewer: Option<&mut Viewer>,
        rendering: &Rendering<'_>,
        bundle: &Bundle,
    ) -> Result<String, Error> {
        let now = self.0.rooms.clock.now_ms();
        let age = i128::from(now) - i128::from(event.pdu.origin_server_ts());
        let mut out = format!("{{\"age\":{}", age.clamp(-(1 << 53), 1 << 53));
        if let Some(viewer) = viewer.as_deref_mut() {
            let membership = self.membership_at(event, viewer)?;
            push_string(&mut out, ",\"membership\":", membership.word());
        }
        if let (Some(origin), Some(viewer)) = (&event.header.origin, viewer.as_deref())
            && *event.pdu.sender() == *viewer.user()
        {
            if origin.device == crate::DELAYED_DEVICE {
                push_string(&mut out, ",\"org.matrix.msc4140.delay_id\":", &origin.txn);
            } else if rendering.device == Some(origin.device.as_str()) {
                push_string(&mut out, ",\"transaction_id\":", &origin.txn);
            }
        }
        if let Some(previous) = self.previous_state(event)? {
            let previous = self.shown_to(&previous, viewer.as_deref_mut())?;
            let content = as_str(previous.pdu.content())?;
            if is_flat(content, IN_UNSIGNED) {
                out.push_str(",\"prev_content\":");
                out.push_str(content);
            }
            push_string(&mut out, ",\"prev_sender\":", previous.pdu.sender().as_ref());
            push_string(&mut out, ",\"replaces_state\":", previous.id().as_str());
        }
        if let Some(by) = event.header.redacted_by
            && let Some(redaction) = self.event(by)?
        {
            let plain = Rendering {
                format: Format::Client,
                device: rendering.device,
                bundle: false,
            };
            // In room versions 1 and 2 two redactions can redact each other: what is told of this one ends here.
            let mut told = Event::clone(&redaction);
            told.header.redacted_by = None;
            let none = Bundle::default();
            if let Some(text) = self.inner_json(&told, viewer.as_deref_mut(), &plain, &none, IN_UNSIGNED)? {
                out.push_str(",\"redacted_because\":");
                out.push_str(&text);
            }
            push_string(&mut out, ",\"redacted_by\":", redaction.id().as_str());
        }
        self.push_relations(&mut out, bundle, viewer, rendering)?;
        out.push('}');
        Ok(out)
    }

    /// An event that is told inside of another one: without what it says where that is nested deeper than may be there.
    fn inner_json(
        &self,
        event: &Event,
        mut viewer: Option<&mut Viewer>,
        rendering: &Rendering<'_>,
        bundle: &Bundle,
        levels: usize,
    ) -> Result<Option<String>, Error> {
        let whole = self.client_json(event, viewer.as_deref_mut(), rendering, bundle)?;
        if is_flat(&whole, levels) {
            return Ok(Some(whole));
        }
        let bare = self.without_content(event)?;
        let bare = self.client_json(&bare, viewer, rendering, &Bundle::default())?;
        Ok(Some(bare).filter(|bare| is_flat(bare, levels)))
    }

    fn push_relations(
        &self,
        out: &mut String,
        bundle: &Bundle,
        mut viewer: Option<&mut Viewer>,
        rendering: &Rendering<'_>,
    ) -> Result<(), Error> {
        let mut parts = Vec::new();
        let inner = Rendering {
            bundle: false,
            format: Format::Client,
            device: rendering.device,
        };
        if let Some(edit) = &bundle.edit {
            let text = self.client_json(edit, viewer.as_deref_mut(), &inner, &Bundle::default())?;
            if is_flat(&text, IN_RELATIONS) {
                parts.push(format!("\"m.replace\":{text}"));
            }
        }
        if !bundle.references.is_empty() {
            let chunk: Vec<_> = bundle
                .references
                .iter()
                .map(|id| serde_json::json!({ "event_id": id }))
                .collect();
            parts.push(format!(
                "\"m.reference\":{}",
                serde_json::json!({ "chunk": chunk })
            ));
        }
        if let Some((latest, count, takes_part)) = &bundle.thread {
            let edits = match viewer.as_deref_mut() {
                Some(viewer) => self.bundle(latest, viewer)?,
                None => Bundle::default(),
            };
            let edits = Bundle {
                thread: None,
                ..edits
            };
            if let Some(latest) = self.inner_json(latest, viewer, &inner, &edits, IN_RELATIONS - 1)? {
                parts.push(format!(
                    "\"m.thread\":{{\"latest_event\":{latest},\"count\":{count},\"current_user_participated\":{takes_part}}}"
                ));
            }
        }
        if !parts.is_empty() {
            out.push_str(",\"m.relations\":{");
            out.push_str(&parts.join(","));
            out.push('}');
        }
        Ok(())
    }

    /// The viewer's membership at the time of an event (`unsigned.membership`, MSC4115).
    fn membership_at(&self, event: &Event, viewer: &mut Viewer) -> Result<crate::Membership, Error> {
        let own = event
            .pdu
            .state_key()
            .is_some_and(|key| *key == *viewer.user().as_str())
            && event.pdu.kind() == "m.room.member";
        if own {
            #[derive(serde::Deserialize)]
            struct Content {
                membership: String,
            }
            if let Ok(content) = serde_json::from_slice::<Content>(event.pdu.content()) {
                return Ok(crate::Membership::from_word(&content.membership));
            }
        }
        viewer.membership_before(event)
    }

    /// The state event that a state event replaced.
    pub fn previous_state(&self, event: &Event) -> Result<Option<Arc<Event>>, Error> {
        match event.pdu.state_key() {
            Some(state_key) => self.state_at(event.header.state_before, event.pdu.kind(), state_key),
            None => Ok(None),
        }
    }
}

/// Whether JSON has no more than so many levels.
fn is_flat(json: &str, levels: usize) -> bool {
    // Few texts have so many brackets at all.
    let brackets = json.bytes().filter(|byte| matches!(byte, b'{' | b'['));
    brackets.count() <= levels || hearth_events::nesting(json.as_bytes()) <= levels
}

fn as_str(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::Damaged("event"))
}

/// The content; that of a redaction names the redacted event in every room version.
fn push_content(out: &mut String, event: &Event) -> Result<(), Error> {
    let content = as_str(event.pdu.content())?;
    match event.pdu.redacts() {
        Some(redacts) if !content.contains("\"redacts\":") => {
            let id = serde_json::Value::String(redacts.to_string()).to_string();
            out.push_str(&with_member(content, "redacts", &id));
        }
        _ => out.push_str(content),
    }
    Ok(())
}

/// A JSON object with one more member at its end.
fn with_member(object: &str, name: &str, value: &str) -> String {
    let body = object.trim_end().strip_suffix('}').unwrap_or(object);
    let comma = if body.trim_end().ends_with('{') { "" } else { "," };
    format!("{body}{comma}\"{name}\":{value}}}")
}

fn push_string(out: &mut String, before: &str, text: &str) {
    out.push_str(before);
    out.push_str(&serde_json::Value::String(text.to_owned()).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_added_at_the_end() {
        assert_eq!(with_member("{}", "a", "1"), r#"{"a":1}"#);
        assert_eq!(with_member(r#"{"b":2}"#, "a", "1"), r#"{"b":2,"a":1}"#);
    }
}
