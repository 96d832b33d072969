//! What an event of the timeline counts for: the running totals, and the rows from which unread counts differ from
//! them (`unread.rs` reads them).

use hearth_events::notification::{self, Class};
use hearth_storage::Family;
use ruma::{OwnedUserId, UserId};

use super::{Staging, Stop};
use crate::{
    Membership,
    event::{Header, Place, Short},
    keys,
    relations::Relation,
    unread::ThreadCount,
    unread_rows as rows,
};

/// An event that has got its place.
pub(super) struct Placed<'a> {
    pub(super) sender: &'a UserId,
    pub(super) kind: &'a str,
    pub(super) state_key: Option<&'a str>,
    pub(super) content: &'a [u8],
    pub(super) relation: Option<&'a Relation>,
    pub(super) place: Place,
    pub(super) short: Short,
}

impl Staging<'_> {
    /// Counts an event. Gives its class and the root of its thread.
    pub(super) fn count(&mut self, event: &Placed<'_>) -> Result<(Class, Option<Short>), Stop> {
        let class = self.class(event.sender, event.kind, event.state_key, event.content);
        let thread = self.thread_of(event.relation)?;
        self.record.totals.add(class, thread.is_some());
        self.record.totals.joined = self.record.joined;
        if let Some(root) = thread.filter(|_| class.notify) {
            self.count_in_thread(root, class, event.place)?;
        }
        self.note_own(event, class, thread);
        if class.personal {
            self.note_named(event, thread)?;
        }
        Ok((class, thread))
    }

    /// Takes a counted event out again: it is redacted.
    pub(super) fn uncount(&mut self, header: &Header) {
        if header.class.notify && header.place.anchor != 0 {
            let hints = &mut self.head.hints;
            hints.uncounted = hints.uncounted.max(header.place.anchor);
            let row = rows::uncounted(self.room.0.key, header.place);
            let value = rows::uncounted_value(header.class, header.thread);
            self.rows.put(Family::RoomIndex, row, value);
        }
    }

    /// The thread that a relation puts an event into: of its own, or as the event is in that it relates to
    /// (client-server API, "Threaded read receipts").
    fn thread_of(&self, relation: Option<&Relation>) -> Result<Option<Short>, Stop> {
        let Some(relation) = relation else {
            return Ok(None);
        };
        if relation.rel_type == "m.thread" {
            return Ok(self.short_of(&relation.event_id)?);
        }
        let Some(short) = self.short_of(&relation.event_id)? else {
            return Ok(None);
        };
        if let Some(staged) = self.events.iter().find(|staged| staged.short == short) {
            return Ok(staged.header.thread);
        }
        if let Some((position, _)) = self.head.pending.ids.get(&relation.event_id)
            && *position > self.room.0.rooms.log.published(self.room.0.shard)
        {
            return Err(Stop::Wait(*position));
        }
        Ok(self.room.event(short)?.and_then(|parent| parent.header.thread))
    }

    fn count_in_thread(&mut self, root: Short, class: Class, place: Place) -> Result<(), Stop> {
        let key = self.room.0.key;
        let known = self
            .thread_counts
            .get(&root)
            .or(self.head.thread_counts.get(&root));
        let before = match known {
            Some(count) => *count,
            None => self.room.thread_count(root, Place::END)?,
        };
        let after = ThreadCount {
            place,
            notify: before.notify + u32::from(class.notify),
            highlight: before.highlight + u32::from(class.highlight),
        };
        if before.place.anchor != 0 {
            self.rows
                .delete(Family::RoomIndex, rows::counted_thread(key, before.place, root));
        }
        self.rows.put(
            Family::RoomIndex,
            rows::counted_thread(key, place, root),
            keys::tagged(&[]),
        );
        self.rows.put(
            Family::RoomIndex,
            rows::thread_count(key, root, place),
            after.value(),
        );
        self.thread_counts.insert(root, after);
        Ok(())
    }

    /// Who says something in a room has read it so far. State may change without anybody reading, as a display name
    /// does in every room; but no own event counts as unread.
    fn note_own(&mut self, event: &Placed<'_>, class: Class, thread: Option<Short>) {
        let says = event.state_key.is_none() && event.kind != "m.room.redaction";
        if event.sender.server_name() == self.room.0.rooms.server_name && (says || class.notify) {
            let row = rows::own(self.room.0.key, event.sender, thread);
            let place = keys::tagged(&keys::place_bytes(event.place));
            self.rows.put(Family::RoomIndex, row, place);
        }
    }

    /// A row for each member of this server whom the event names: for them it may count for more.
    fn note_named(&mut self, event: &Placed<'_>, thread: Option<Short>) -> Result<(), Stop> {
        let server = self.room.0.rooms.server_name.clone();
        for user in notification::named(event.content, server.as_str()) {
            let Ok(user) = OwnedUserId::try_from(user) else {
                continue;
            };
            let member = ("m.room.member".to_owned(), user.to_string());
            let joined = self
                .entry(&member)?
                .is_some_and(|entry| entry.membership == Membership::Join);
            if joined && user != event.sender {
                let hints = &mut self.head.hints;
                hints.named = hints.named.max(event.place.anchor);
                let row = rows::named(self.room.0.key, &user, event.place);
                let value = rows::named_value(event.short, thread);
                self.rows.put(Family::RoomIndex, row, value);
            }
        }
        Ok(())
    }
}
