//! Bundled aggregations: the newest edit, the thread and the references of an event (client-server API, "Aggregations
//! of child events").

use std::sync::Arc;

use ruma::OwnedEventId;

use super::{Relation, Thread};
use crate::{Error, Event, Room, event::Short};

/// How many rows of one event's relations are looked at for its bundled aggregations.
const BUNDLED_ROWS_MAX: usize = 1000;

/// What is bundled with an event under `unsigned.m.relations`.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    /// The newest valid edit.
    pub edit: Option<Arc<Event>>,
    /// The thread of which the event is the root: newest event, count, whether the user takes part.
    pub thread: Option<(Arc<Event>, u32, bool)>,
    /// Events that refer to it by `m.reference`.
    pub references: Vec<OwnedEventId>,
}

impl Room {
    /// What to bundle with an event for a user, as far as the user may see it.
    pub fn bundle(&self, event: &Event, viewer: &mut crate::Viewer) -> Result<Bundle, Error> {
        let mut bundle = Bundle::default();
        // State has no bundled aggregations.
        if event.pdu.state_key().is_some() {
            return Ok(bundle);
        }
        let mut edits = Vec::new();
        let mut references = Vec::new();
        let mut threaded = false;
        let mut rows = 0;
        self.visit_relations(event.short, None, true, &mut |row| {
            rows += 1;
            match row.rel_type.as_str() {
                "m.replace" => edits.push(row.child),
                "m.reference" => references.push(row.child),
                "m.thread" => threaded = true,
                _ => {}
            }
            rows < BUNDLED_ROWS_MAX
        })?;
        if rows == 0 {
            return Ok(bundle);
        }
        // Only its own sender edits an event. What is redacted has no edit to be shown, but keeps its thread and its
        // references ("Server-side aggregation of m.replace relationships").
        if !viewer.ignores(event) && !event.is_redacted() {
            bundle.edit = self.newest_edit(event, &edits, viewer)?;
        }
        for child in references.into_iter().rev() {
            if let Some(child) = self.event(child)?
                && !viewer.ignores(&child)
                && viewer.may_see(&child)?
            {
                bundle.references.push(child.id().to_owned());
            }
        }
        if (threaded || rows >= BUNDLED_ROWS_MAX)
            && let Some(thread) = self.thread(event.short)?
            && let Some((latest, count)) = self.thread_for(&thread, viewer)?
        {
            let takes_part =
                *event.pdu.sender() == *viewer.user() || self.takes_part(event.short, viewer.user())?;
            bundle.thread = Some((latest, count, takes_part));
        }
        Ok(bundle)
    }

    /// The newest event of a thread and how many there are, for a viewer: without what ignored users said.
    fn thread_for(
        &self,
        thread: &Thread,
        viewer: &mut crate::Viewer,
    ) -> Result<Option<(Arc<Event>, u32)>, Error> {
        let mut ignored = false;
        for user in viewer.ignored().iter() {
            ignored |= self.takes_part(thread.root, user)?;
        }
        if !ignored {
            let latest = self.latest_visible(thread, viewer)?;
            return Ok(latest.map(|latest| (latest, thread.count)));
        }
        let mut replies = Vec::new();
        self.visit_relations(thread.root, None, true, &mut |row| {
            if row.rel_type == "m.thread" {
                replies.push(row.child);
            }
            replies.len() < BUNDLED_ROWS_MAX
        })?;
        let (mut latest, mut count) = (None, thread.count);
        for reply in self.events(&replies)? {
            if viewer.ignored().contains(reply.pdu.sender()) {
                count = count.saturating_sub(u32::from(!reply.is_redacted()));
            } else if latest.is_none() && !reply.is_redacted() && viewer.may_see(&reply)? {
                latest = Some(reply);
            }
        }
        Ok(latest.map(|latest| (latest, count)))
    }

    /// The newest event of a thread that the viewer may see: not what was said after the viewer left.
    fn latest_visible(
        &self,
        thread: &Thread,
        viewer: &mut crate::Viewer,
    ) -> Result<Option<Arc<Event>>, Error> {
        if let Some(latest) = self.event(thread.latest)?
            && viewer.may_see(&latest)?
            && !viewer.ignores(&latest)
        {
            return Ok(Some(latest));
        }
        let mut replies = Vec::new();
        let before = viewer.left().map_or(thread.place, |left| left.min(thread.place));
        self.visit_relations(thread.root, Some(before), true, &mut |row| {
            if row.rel_type == "m.thread" {
                replies.push(row.child);
            }
            replies.len() < BUNDLED_ROWS_MAX
        })?;
        for reply in replies {
            if let Some(event) = self.event(reply)?
                && viewer.may_see(&event)?
                && !viewer.ignores(&event)
            {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The newest valid edit of an event, whoever may see it.
    pub fn latest_edit(&self, event: &Event) -> Result<Option<Arc<Event>>, Error> {
        struct Everything;
        impl crate::Sees for Everything {
            fn may_see(&mut self, _: &Event) -> Result<bool, Error> {
                Ok(true)
            }
        }
        let (mut edits, mut rows) = (Vec::new(), 0);
        self.visit_relations(event.short, None, true, &mut |row| {
            rows += 1;
            if row.rel_type == "m.replace" {
                edits.push(row.child);
            }
            rows < BUNDLED_ROWS_MAX
        })?;
        self.newest_edit(event, &edits, &mut Everything)
    }

    /// The valid edit with the greatest origin_server_ts, ties by event id ("Server-side
    /// aggregation of m.replace relationships").
    fn newest_edit(
        &self,
        event: &Event,
        edits: &[Short],
        viewer: &mut dyn crate::Sees,
    ) -> Result<Option<Arc<Event>>, Error> {
        let mut newest: Option<Arc<Event>> = None;
        if edits.is_empty() || !may_be_edited(event) {
            return Ok(None);
        }
        for edit in self.events(edits)? {
            let valid = is_edit_of(&edit, event);
            let rank = |event: &Event| (event.pdu.origin_server_ts(), event.id().to_owned());
            let newer = newest.as_ref().is_none_or(|found| rank(found) < rank(&edit));
            if valid && newer && viewer.may_see(&edit)? {
                newest = Some(edit);
            }
        }
        Ok(newest)
    }
}

/// Whether an event can be replaced at all: state is not, and no edit is edited.
fn may_be_edited(event: &Event) -> bool {
    let is_edit = Relation::of_content(event.pdu.content()).is_some_and(|own| own.rel_type == "m.replace");
    event.pdu.state_key().is_none() && !is_edit
}

/// Whether a replacement is valid ("Validity of replacement events"), as far as a server can see.
fn is_edit_of(edit: &Event, event: &Event) -> bool {
    edit.pdu.sender() == event.pdu.sender()
        && edit.pdu.kind() == event.pdu.kind()
        && edit.pdu.state_key().is_none()
        && !edit.is_redacted()
        // The new content of an encrypted event is encrypted with it.
        && (edit.pdu.kind() == "m.room.encrypted" || has_new_content(edit.pdu.content()))
}

fn has_new_content(content: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Content<'a> {
        #[serde(rename = "m.new_content", borrow)]
        new_content: Option<&'a serde_json::value::RawValue>,
    }
    serde_json::from_slice::<Content<'_>>(content).is_ok_and(|content| content.new_content.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_content_stands_at_the_top() {
        for (content, expected) in [
            (r#"{"m.new_content":{"body":"b"}}"#, true),
            (r#"{"body":"\"m.new_content\":{}"}"#, false),
            (r#"{"inner":{"m.new_content":{}}}"#, false),
            (r#"{"m.new_content":null}"#, false),
            ("{}", false),
        ] {
            assert_eq!(has_new_content(content.as_bytes()), expected, "{content}");
        }
    }
}
