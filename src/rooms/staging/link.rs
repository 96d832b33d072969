//! What an event of another server says of others: relations and redactions, its own and those of events that waited for it.

use std::sync::Arc;

use ruma::OwnedUserId;

use super::{Body, StagedEvent, Staging, Stop, place::Judged};
use crate::{
    Event,
    annotations::Annotation,
    event::{Flags, Header, Short, encode_event_id},
    keys,
    relations::Relation,
};
use hearth_storage::Family;

impl Staging<'_> {
    /// Relations and redactions, of the event and of those that waited for it; then it is staged.
    pub(super) fn link(&mut self, judged: &Judged, short: Short, mut header: Header) -> Result<(), Stop> {
        let pdu = judged.pdu.clone();
        let key = self.room.0.key;
        let mut relation = None;
        if let Some(found) = Relation::of_content(pdu.content())
            && !(pdu.state_key().is_some() && found.rel_type == "m.replace")
        {
            match self.placed_short(&found.event_id)? {
                Some(parent) => relation = Some((parent, found)),
                None => self.wait_for(&found.event_id, short),
            }
        }
        if pdu.kind() == "m.room.redaction"
            && let Some(target) = pdu.redacts()
        {
            match self.placed_short(target)? {
                Some(found) => self.redact_by(found, pdu.sender().to_owned(), short)?,
                None => {
                    // Once more when it gets a place: it may come from elsewhere as it was then.
                    self.wait_for(target, short);
                    if let Some(outlier) = self.room.short_of(target)? {
                        self.redact_by(outlier, pdu.sender().to_owned(), short)?;
                    }
                }
            }
        }
        let mut event = Event {
            short,
            header: header.clone(),
            pdu: pdu.clone(),
        };
        if let Some(known) = judged.known
            && let Some(known) = self.room.event(known)?
            && let Some(by) = known.header.redacted_by
        {
            // It was redacted while it had no place; it comes as it was before.
            event.pdu = hearth_events::redact(self.room.0.rules, &event.pdu)?;
            header.flags.0 |= Flags::REDACTED;
            header.redacted_by = Some(by);
        }
        for child in self.waiting_for(&pdu.event_id)? {
            let Some(child) = self.room.event(child)? else {
                continue;
            };
            let row = keys::index(
                key,
                keys::INDEX_WAITING,
                &[&encode_event_id(&pdu.event_id), &child.short.to_be_bytes()],
            );
            self.rows.delete(Family::RoomIndex, row);
            if child.pdu.redacts() == Some(&*pdu.event_id) {
                let own = child.pdu.sender().server_name() == pdu.sender().server_name();
                if own || self.may_redact(child.pdu.sender()) {
                    event.pdu = hearth_events::redact(self.room.0.rules, &event.pdu)?;
                    self.uncount(&header);
                    header.flags.0 |= Flags::REDACTED;
                    header.redacted_by = Some(child.short);
                }
            } else if let Some(found) = Relation::of_content(child.pdu.content())
                && found.event_id == pdu.event_id
            {
                self.room.0.relations.come();
                self.head.hints.related = self.head.hints.related.max(short);
                let row = keys::relation(key, short, child.header.place, child.short);
                self.rows.put(Family::RoomIndex, row, found.row(child.pdu.kind()));
            }
        }
        let annotation = relation
            .as_ref()
            .and_then(|(parent, relation)| Annotation::of(*parent, relation, pdu.sender(), pdu.kind()));
        self.open_gap(header.place, &judged.missing);
        self.events.push(StagedEvent {
            short,
            totals: self.record.totals,
            kind: pdu.kind().to_owned(),
            sender: pdu.sender().to_owned(),
            body: Body::Signed(event.pdu),
            header,
            known: judged.known.is_some(),
            relation,
            annotation,
        });
        Ok(())
    }

    /// The short id of an event that has a place; none where it is missing or an outlier.
    fn placed_short(&self, id: &ruma::EventId) -> Result<Option<Short>, Stop> {
        if let Some((_, short)) = self.head.pending.ids.get(id) {
            return Ok(Some(*short));
        }
        let Some(event) = self.room.event_by_id(id)? else {
            return Ok(None);
        };
        Ok((event.header.place.anchor != 0).then_some(event.short))
    }

    /// Applies a redaction that was accepted, if its sender may redact the event (room versions, "Handling
    /// redactions").
    fn redact_by(&mut self, target: Short, sender: OwnedUserId, by: Short) -> Result<(), Stop> {
        if let Some((position, _)) = self.head.pending.ids.values().find(|(_, id)| *id == target) {
            return Err(Stop::Wait(*position));
        }
        let Some(event) = self.room.event(target)? else {
            return Ok(());
        };
        let own = event.pdu.sender().server_name() == sender.server_name();
        if event.is_redacted() || !(own || self.may_redact(&sender)) {
            return Ok(());
        }
        self.apply_redaction(Arc::clone(&event), by)
    }
}
