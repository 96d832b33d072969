//! Relations between events: the index that `/relations`, the threads list and bundled
//! aggregations read (client-server API, "Forming relationships between events").

use std::{collections::HashMap, sync::Arc};

use hearth_storage::{Batch, EntityKey, Family, Position};
use ruma::{OwnedEventId, OwnedUserId, UserId};

use crate::{
    Error, Event, Room,
    codec::{Cursor, put_varint},
    event::{Place, Short},
    keys,
};

/// The tag of a thread row's first encoding.
const THREAD_V1: u8 = 1;

/// How many rows of one event's relations are looked at for its bundled aggregations.
const BUNDLED_ROWS_MAX: usize = 1000;

/// An event's `m.relates_to`, as far as the server reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// `m.annotation`, `m.replace`, `m.thread`, `m.reference`, or a custom type.
    pub rel_type: String,
    /// The event related to.
    pub event_id: OwnedEventId,
    /// The key of an annotation.
    pub key: Option<String>,
}

impl Relation {
    /// The relation that a content states; anything malformed states none.
    pub fn of_content(content: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Content {
            #[serde(rename = "m.relates_to")]
            relates_to: Option<serde_json::Value>,
        }
        if !contains(content, b"\"m.relates_to\"") {
            return None;
        }
        let relates_to = serde_json::from_slice::<Content>(content).ok()?.relates_to?;
        let text = |name: &str| relates_to.get(name)?.as_str().map(str::to_owned);
        Some(Self {
            rel_type: text("rel_type")?,
            event_id: OwnedEventId::try_from(text("event_id")?).ok()?,
            key: text("key"),
        })
    }

    /// The value of the relation's row.
    pub(crate) fn row(&self, kind: &str) -> Vec<u8> {
        keys::tagged(&[self.rel_type.as_bytes(), &[0], kind.as_bytes()].concat())
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// A row of the relations index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationRow {
    /// Where the related event stands in the timeline.
    pub place: Place,
    /// The related event.
    pub child: Short,
    /// Its relation's type.
    pub rel_type: String,
    /// Its event type.
    pub kind: String,
}

/// What is kept of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The thread's root.
    pub root: Short,
    /// How many events it has beside the root.
    pub count: u32,
    /// The newest of them.
    pub latest: Short,
    /// Where that one stands.
    pub place: Place,
}

impl Thread {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.push(THREAD_V1);
        put_varint(&mut out, u64::from(self.count));
        put_varint(&mut out, u64::from(self.latest));
        out.extend_from_slice(&keys::place_bytes(self.place));
        out
    }

    fn decode(root: Short, bytes: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, "thread");
        if cursor.u8()? != THREAD_V1 {
            return Err(cursor.damaged());
        }
        let count = cursor.u32()?;
        let latest = cursor.u32()?;
        let place = keys::read_place(cursor.take(12)?).ok_or(Error::Damaged("thread"))?;
        Ok(Self {
            root,
            count,
            latest,
            place,
        })
    }
}

/// The thread rows that one operation changes.
#[derive(Default)]
pub(crate) struct ThreadRows {
    /// Before and after, by root.
    changed: HashMap<Short, (Option<Thread>, Option<Thread>)>,
    users: Vec<(Short, OwnedUserId)>,
}

impl ThreadRows {
    fn now(&self, room: &Room, threads: &mut HashMap<Short, Thread>, root: Short) -> Option<Thread> {
        if let Some(thread) = threads.get(&root) {
            return Some(*thread);
        }
        room.thread(root).ok().flatten()
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one staged event")]
    pub(crate) fn reply(
        &mut self,
        room: &Room,
        threads: &mut HashMap<Short, Thread>,
        root: Short,
        short: Short,
        place: Place,
        sender: &UserId,
        _position: Position,
    ) {
        let before = self.now(room, threads, root).filter(|thread| thread.count > 0);
        let count = before.map_or(0, |thread| thread.count) + 1;
        // History that is filled in is older than what the thread has.
        let after = match before {
            Some(before) if before.place > place => Thread { count, ..before },
            _ => Thread {
                root,
                count,
                latest: short,
                place,
            },
        };
        threads.insert(root, after);
        self.changed.entry(root).or_insert((before, None)).1 = Some(after);
        self.users.push((root, sender.to_owned()));
    }

    pub(crate) fn unlink(
        &mut self,
        room: &Room,
        threads: &mut HashMap<Short, Thread>,
        root: Short,
        place: Place,
        short: Short,
        _position: Position,
    ) {
        let Some(before) = self.now(room, threads, root).filter(|thread| thread.count > 0) else {
            return;
        };
        let mut after = Thread {
            count: before.count - 1,
            ..before
        };
        if before.latest == short && after.count > 0 {
            let newest = room.latest_thread_event(root, place).ok().flatten();
            if let Some(row) = newest {
                after.latest = row.child;
                after.place = row.place;
            }
        }
        threads.insert(root, after);
        self.changed.entry(root).or_insert((Some(before), None)).1 = Some(after);
    }

    pub(crate) fn write(&self, key: EntityKey, batch: &mut Batch) {
        for (root, (before, after)) in &self.changed {
            let row = keys::index(key, keys::INDEX_THREAD, &[&root.to_be_bytes()]);
            if let Some(before) = before {
                batch.delete(Family::RoomIndex, order_key(key, before.place, *root));
            }
            match after.filter(|thread| thread.count > 0) {
                Some(after) => {
                    batch.put(Family::RoomIndex, row, after.encode());
                    batch.put(
                        Family::RoomIndex,
                        order_key(key, after.place, *root),
                        keys::tagged(&[]),
                    );
                }
                None => batch.delete(Family::RoomIndex, row),
            }
        }
        for (root, user) in &self.users {
            let row = keys::index(
                key,
                keys::INDEX_THREAD_USER,
                &[&root.to_be_bytes(), user.as_bytes()],
            );
            batch.put(Family::RoomIndex, row, keys::tagged(&[]));
        }
    }
}

fn order_key(key: EntityKey, place: Place, root: Short) -> Vec<u8> {
    keys::index(
        key,
        keys::INDEX_THREAD_ORDER,
        &[&keys::place_bytes(place), &root.to_be_bytes()],
    )
}

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
    /// The thread below a root.
    pub fn thread(&self, root: Short) -> Result<Option<Thread>, Error> {
        let row = keys::index(self.0.key, keys::INDEX_THREAD, &[&root.to_be_bytes()]);
        let value = self.reader().get(Family::RoomIndex, &row)?;
        value.map(|bytes| Thread::decode(root, &bytes)).transpose()
    }

    /// Whether a user has sent an event to a thread.
    pub fn takes_part(&self, root: Short, user: &UserId) -> Result<bool, Error> {
        let row = keys::index(
            self.0.key,
            keys::INDEX_THREAD_USER,
            &[&root.to_be_bytes(), user.as_bytes()],
        );
        Ok(self.reader().get(Family::RoomIndex, &row)?.is_some())
    }

    /// Threads by the place of their newest event, newest first, from before `before`.
    pub fn threads(&self, before: Option<Place>, limit: usize) -> Result<Vec<Thread>, Error> {
        let (start, end) = keys::range(keys::index(self.0.key, keys::INDEX_THREAD_ORDER, &[]));
        let skip = start.len();
        let end = match before {
            Some(place) => keys::index(self.0.key, keys::INDEX_THREAD_ORDER, &[&keys::place_bytes(place)]),
            None => end,
        };
        let mut roots = Vec::new();
        self.reader()
            .scan(Family::RoomIndex, &start, &end, true, &mut |key, _| {
                roots.extend(keys::read_u32(&key[skip + 12..], "thread order").ok());
                roots.len() < limit
            })?;
        let mut out = Vec::with_capacity(roots.len());
        for root in roots {
            out.extend(self.thread(root)?);
        }
        Ok(out)
    }

    fn latest_thread_event(&self, root: Short, before: Place) -> Result<Option<RelationRow>, Error> {
        let mut found = None;
        self.visit_relations(root, Some(before), true, &mut |row| {
            if row.rel_type == "m.thread" {
                found = Some(row);
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// Visits the relations of an event in the order of the timeline, or backwards from before a
    /// place (forwards: from after it); stop by returning false.
    pub fn visit_relations(
        &self,
        parent: Short,
        from: Option<Place>,
        backward: bool,
        visit: &mut dyn FnMut(RelationRow) -> bool,
    ) -> Result<(), Error> {
        let all = keys::index(self.0.key, keys::INDEX_RELATION, &[]);
        if parent > self.view().hints.related || !self.0.relations.be(|| self.has_rows(&all))? {
            return Ok(());
        }
        let prefix = keys::index(self.0.key, keys::INDEX_RELATION, &[&parent.to_be_bytes()]);
        let skip = prefix.len();
        let (mut start, mut end) = keys::range(prefix.clone());
        if let Some(place) = from {
            let bound = [prefix.as_slice(), &keys::place_bytes(place)].concat();
            match backward {
                true => end = bound,
                false => start = hearth_storage::prefix_end(&bound),
            }
        }
        self.reader()
            .scan(Family::RoomIndex, &start, &end, backward, &mut |key, value| {
                let Some(place) = keys::read_place(&key[skip..]) else {
                    return true;
                };
                let Ok(child) = keys::read_u32(&key[skip + 12..], "relation") else {
                    return true;
                };
                let Some(value) = keys::untagged(value) else {
                    return true;
                };
                let mut parts = value.splitn(2, |byte| *byte == 0);
                let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                visit(RelationRow {
                    place,
                    child,
                    rel_type: text(),
                    kind: text(),
                })
            })?;
        Ok(())
    }

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

    #[test]
    fn relations_are_read_leniently() {
        for (content, expected) in [
            (r#"{"body":"m.relates_to"}"#, None),
            (r#"{"m.relates_to":5}"#, None),
            (r#"{"m.relates_to":{"rel_type":"m.thread"}}"#, None),
            (r#"{"m.relates_to":{"rel_type":"m.thread","event_id":5}}"#, None),
            (
                r#"{"m.relates_to":{"rel_type":"m.thread","event_id":"$a"}}"#,
                Some(("m.thread", None)),
            ),
            (
                r#"{"m.relates_to":{"rel_type":"m.annotation","event_id":"$a","key":"+"}}"#,
                Some(("m.annotation", Some("+"))),
            ),
        ] {
            let found = Relation::of_content(content.as_bytes());
            let found = found
                .as_ref()
                .map(|found| (found.rel_type.as_str(), found.key.as_deref()));
            assert_eq!(found, expected, "{content}");
        }
    }
}
