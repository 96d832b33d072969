//! What an event of another server says of others: relations and redactions, its own and those of events that waited for it.

use std::{collections::HashMap, sync::Arc};

use hearth_events::Pdu;
use hearth_storage::Family;
use ruma::{OwnedEventId, OwnedUserId, UserId};

use super::{Body, LateReply, Outlier, StagedEvent, Staging, Stop, place::Judged};
use crate::{
    Event,
    annotations::Annotation,
    event::{Flags, Header, Place, Short, encode_event_id},
    keys,
    relations::Relation,
};

/// An event that says something of one that was not here.
struct Waiting {
    pdu: Pdu,
    place: Place,
    /// Where it is in this operation; none where it is stored.
    staged: Option<usize>,
}

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
        let mut redacted_by = None;
        if let Some(known) = judged.known
            && let Some(known) = self.room.event(known)?
        {
            // It may have been redacted while it had no place; it comes as it was before.
            redacted_by = known.header.redacted_by;
        }
        for child in self.waiting_for(&pdu.event_id)? {
            let Some(waiting) = self.waiting(child)? else {
                continue;
            };
            let row = keys::index(
                key,
                keys::INDEX_WAITING,
                &[&encode_event_id(&pdu.event_id), &child.to_be_bytes()],
            );
            self.rows.delete(Family::RoomIndex, row);
            if waiting.pdu.redacts() == Some(&*pdu.event_id) {
                if self.redacts(waiting.pdu.sender(), &pdu)? {
                    redacted_by = Some(child);
                }
            } else if let Some(found) = Relation::of_content(waiting.pdu.content())
                && found.event_id == pdu.event_id
                && waiting.place.anchor != 0
            {
                self.link_waiting(short, child, waiting, found);
            }
        }
        if let Some(by) = redacted_by {
            event.pdu = hearth_events::redact(self.room.0.rules, &event.pdu)?;
            self.uncount(&header);
            header.flags.0 |= Flags::REDACTED;
            header.redacted_by = Some(by);
            // What it said of another event is gone with its content.
            relation = None;
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

    /// Whether an accepted redaction of this sender does what it says.
    fn redacts(&mut self, sender: &UserId, target: &Pdu) -> Result<bool, Stop> {
        Ok(sender.server_name() == target.sender().server_name() || self.may_redact(sender)?)
    }

    /// The redactions that came before events which have no place yet.
    pub(crate) fn redactions_of(
        &mut self,
        outliers: &[Outlier],
    ) -> Result<HashMap<OwnedEventId, Short>, Stop> {
        let mut found = HashMap::new();
        for Outlier { pdu, .. } in outliers {
            for child in self.waiting_for(&pdu.event_id)? {
                if let Some(waiting) = self.waiting(child)?
                    && waiting.pdu.redacts() == Some(&*pdu.event_id)
                    && self.redacts(waiting.pdu.sender(), pdu)?
                {
                    found.insert(pdu.event_id.clone(), child);
                }
            }
        }
        Ok(found)
    }

    /// An event of another server, stored or of this operation.
    fn waiting(&self, short: Short) -> Result<Option<Waiting>, Stop> {
        if let Some(at) = self.events.iter().position(|staged| staged.short == short) {
            let staged = &self.events[at];
            return Ok(match &staged.body {
                Body::Signed(pdu) => Some(Waiting {
                    pdu: pdu.clone(),
                    place: staged.header.place,
                    staged: Some(at),
                }),
                Body::Unsigned(_) => None,
            });
        }
        Ok(self.room.event(short)?.map(|event| Waiting {
            pdu: event.pdu.clone(),
            place: event.header.place,
            staged: None,
        }))
    }

    /// Notes what an event that was here first says of the event that has come now.
    fn link_waiting(&mut self, parent: Short, child: Short, waiting: Waiting, relation: Relation) {
        self.room.0.relations.come();
        self.head.hints.related = self.head.hints.related.max(parent);
        let Waiting { pdu, place, staged } = waiting;
        if let Some(at) = staged {
            let staged = &mut self.events[at];
            staged.annotation = Annotation::of(parent, &relation, &staged.sender, &staged.kind);
            staged.relation = Some((parent, relation));
            return;
        }
        let row = keys::relation(self.room.0.key, parent, place, child);
        self.rows.put(Family::RoomIndex, row, relation.row(pdu.kind()));
        if let Some(annotation) = Annotation::of(parent, &relation, pdu.sender(), pdu.kind()) {
            annotation.put(self.room, child, &mut self.rows);
        }
        if relation.rel_type == "m.thread" {
            self.late_replies.push(LateReply {
                root: parent,
                reply: child,
                place,
                sender: pdu.sender().to_owned(),
            });
        }
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
        // An event that came redacted, because its server had the redaction first, does not name it yet.
        if event.header.redacted_by.is_some() || !self.redacts(&sender, &event.pdu)? {
            return Ok(());
        }
        self.apply_redaction(Arc::clone(&event), by)
    }
}
