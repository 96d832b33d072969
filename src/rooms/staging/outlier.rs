//! Staging events without a place in the timeline: parts of auth chains and of states, and what was refused.

use std::collections::HashMap;

use hearth_events::Pdu;
use ruma::OwnedEventId;
use smallvec::SmallVec;

use super::{Body, StagedEvent, Staging, Stop};
use crate::{
    Error,
    event::{Flags, Header, Place, Short},
    state_tree::{self, NodeId},
};

/// An event without a place: part of an auth chain or of a state.
pub(crate) struct Outlier {
    pub(crate) pdu: Pdu,
    pub(crate) rejected: bool,
    pub(crate) redacted: bool,
}

/// An entry of a state: the event's type, its state key and its short id.
pub(crate) type StateOf = (String, String, Short);

impl Staging<'_> {
    /// Keeps events that have no place in the timeline, and by which redactions some of them were redacted before they came.
    /// Those that came another way meanwhile stay as they are: an event has one short id.
    pub(crate) fn keep_outliers(
        &mut self,
        outliers: Vec<Outlier>,
        redactions: &HashMap<OwnedEventId, Short>,
    ) -> Result<(), Error> {
        for mut outlier in outliers {
            if self.short_of(&outlier.pdu.event_id)?.is_some() {
                continue;
            }
            if let Some(state_key) = outlier.pdu.state_key() {
                self.key_short(&(outlier.pdu.kind().to_owned(), state_key.to_owned()))?;
            }
            let mut auth = SmallVec::new();
            for id in outlier.pdu.auth_events() {
                auth.extend(self.short_of(id)?);
            }
            self.record.last_short += 1;
            let short = self.record.last_short;
            self.ids.insert(outlier.pdu.event_id.clone(), short);
            let mut flags = Flags(Flags::OUTLIER);
            if outlier.rejected {
                flags.0 |= Flags::REJECTED;
            }
            let redacted_by = redactions.get(&outlier.pdu.event_id).copied();
            if redacted_by.is_some() {
                outlier.pdu = hearth_events::redact(self.room.0.rules, &outlier.pdu)?;
            }
            if outlier.redacted || redacted_by.is_some() {
                flags.0 |= Flags::REDACTED;
            }
            let header = Header {
                flags,
                class: Default::default(),
                place: Place::default(),
                position: 0,
                state_before: NodeId::EMPTY,
                prev: SmallVec::new(),
                auth,
                thread: None,
                redacted_by,
                origin: None,
            };
            self.keep(outlier.pdu, short, header, false);
        }
        Ok(())
    }

    /// Makes the nodes of a state.
    pub(crate) fn make_state(&mut self, entries: &[StateOf]) -> Result<NodeId, Stop> {
        let (numbered, _) = self.number_keys(entries)?;
        let (root, nodes) = state_tree::build(numbered);
        self.nodes.absorb(nodes);
        Ok(root)
    }

    /// The entries of a state by the numbers of their keys. Says whether any key has got its number only now.
    pub(crate) fn number_keys(&mut self, entries: &[StateOf]) -> Result<(Vec<(u32, Short)>, bool), Stop> {
        let mut numbered = Vec::with_capacity(entries.len());
        for (kind, state_key, short) in entries {
            numbered.push((self.key_short(&(kind.clone(), state_key.clone()))?, *short));
        }
        Ok((numbered, !self.new_keys.is_empty()))
    }

    pub(super) fn keep(&mut self, pdu: Pdu, short: Short, header: Header, known: bool) {
        self.events.push(StagedEvent {
            short,
            totals: self.record.totals,
            kind: pdu.kind().to_owned(),
            sender: pdu.sender().to_owned(),
            body: Body::Signed(pdu),
            header,
            known,
            relation: None,
            annotation: None,
        });
    }
}
