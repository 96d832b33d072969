//! State resolution: what the state of a room is after several events that follow different states (room versions, "State resolution").
//!
//! Everything works on differences and on numbers. A state set is never handed over whole: the caller gives the keys on which the sets
//! differ, and [`ResolveSource`] answers questions about the rest, each for the cost of a look-up. What resolution costs follows from the
//! conflict: from the events on whose paths the sets differ, not from the room.
//!
//! **The auth difference without the sets.** The chain of a set is that of its unconflicted entries, which all sets share, and that of its
//! conflicted values. So an event is in the difference if some but not all sets have it in the chain of a conflicted value, and if it is not
//! in the chain of an unconflicted entry. The walk begins at the conflicted values, goes along `auth_events` and turns back where it meets
//! an event of the shared chain: all that such an event cites is in the shared chain too. Whether an event is in the shared chain is found
//! out in the other direction, from the event to those that cite it ([`ResolveSource::cited_by`]), until one of them is an unconflicted
//! entry. Power levels that 100,000 member events cite are recognized by the first of these that still counts.

mod difference;
mod graph;
mod iterate;
mod order;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::{Pdu, Rules};
use graph::Graph;

/// An event's number in its room.
pub type EventNo = u32;
/// A state key's number in its room: that of a pair of type and state key.
pub type KeyNo = u32;
/// Why a source could not answer.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// How many events and citations one resolution may look at. A resolution that has to replay everything that ever happened to the state of
/// a room with a million member events needs some six millions; what needs more is not the state of a room but an attack.
pub const STEPS_MAX: u64 = 30_000_000;

/// An event as resolution reads it.
pub trait ResolveEvent: Send + Sync {
    /// The event, redacted if it was.
    fn pdu(&self) -> &Pdu;
    /// Its `auth_events`, in their order.
    fn auth(&self) -> &[EventNo];
    /// Whether it was rejected.
    fn rejected(&self) -> bool;
}

/// What resolution asks of the room.
///
/// Both questions about the unconflicted state may be answered from any one of the state sets: they are never asked for a key or a value
/// that is conflicted.
pub trait ResolveSource {
    /// An event of the room. All events that an event of the room cites are known, so an unknown one is an error.
    fn event(&self, no: EventNo) -> Result<Arc<dyn ResolveEvent>, SourceError>;

    /// The `auth_events` of an event. Worth an implementation of its own where that is cheaper than the event.
    fn auth(&self, no: EventNo) -> Result<SmallVec<[EventNo; 4]>, SourceError> {
        Ok(self.event(no)?.auth().into())
    }

    /// The room's create event. Asked for in room versions where no event lists it among its `auth_events`.
    fn create(&self) -> Result<EventNo, SourceError>;

    /// The value that all state sets have for this type and state key.
    fn unconflicted(&self, kind: &str, state_key: &str) -> Result<Option<EventNo>, SourceError>;

    /// Whether the event is the value that all state sets have for its type and state key.
    fn is_unconflicted(&self, no: EventNo) -> Result<bool, SourceError>;

    /// Visits the state events which list this one among their `auth_events`, until told to stop. Any order is right; with the newest first
    /// the search ends soonest, because the newest are the likeliest to be in the present state. Events that are no state events need not be
    /// visited, as no state and no chain contains them.
    fn cited_by(
        &self,
        no: EventNo,
        visit: &mut dyn FnMut(EventNo) -> ControlFlow<()>,
    ) -> Result<(), SourceError>;

    /// Whether every event of the room has a greater number than all that it cites, as it has where events are numbered when they are
    /// stored. With such numbers a walk knows when it is beyond everything that it looks for; otherwise it goes on to the room's beginning or
    /// to its end.
    fn numbers_ascend(&self) -> bool;

    /// A number that no entry of the state sets exceeds: the greatest of the events that the sets are the states after will do. The events
    /// that came later play no part then, so that resolving old states of a room does not look at what the room became since;
    /// [`ResolveSource::cited_by`] may leave them out. Without meaning unless numbers ascend.
    fn newest(&self) -> EventNo {
        EventNo::MAX
    }
}

/// A key on which the state sets differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The key.
    pub key: KeyNo,
    /// Its value in each of the sets, in the same order of sets for all keys; `None` where a set lacks the key.
    pub values: SmallVec<[Option<EventNo>; 4]>,
}

/// What the room's state is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The value for each conflicted key, in the order of the conflicts; `None` where the state lacks the key.
    pub keys: Vec<(KeyNo, Option<EventNo>)>,
    /// Events that came into the state for keys which none of the sets has. That takes sets which lack what their own events cite, so the list
    /// is nearly always empty.
    pub more: Vec<EventNo>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The source could not answer.
    #[error("an event of the room cannot be read: {0}")]
    Source(#[source] SourceError),
    /// The input names a key that is no conflict, or has another number of values than there are sets.
    #[error("the key {0} has no conflict between the sets")]
    NoConflict(KeyNo),
    /// The values of a key are not state events of one type and state key.
    #[error("the values of the key {0} are not of one type and state key")]
    Mixed(KeyNo),
    /// An event cites one with a greater number, although the source said that none does.
    #[error("the event {0} cites one with a greater number")]
    Disorder(EventNo),
    /// It took more than [`STEPS_MAX`] steps.
    #[error("the state sets differ too much")]
    TooMuch,
}

/// Resolves state sets, given the keys on which they differ.
pub fn resolve(
    rules: &Rules,
    sets: usize,
    conflicts: &[Conflict],
    source: &dyn ResolveSource,
) -> Result<Resolved, ResolveError> {
    if conflicts.is_empty() {
        return Ok(Resolved::default());
    }
    let mut graph = Graph::new(rules, source);
    let conflicts = Conflicts::read(sets, conflicts, &mut graph)?;
    match rules.state_res.v2_rules() {
        None => v1::resolve(&mut graph, &conflicts),
        Some(version) => v2::resolve(&mut graph, &conflicts, version),
    }
}

/// The conflicts, with what their keys stand for.
struct Conflicts {
    sets: usize,
    keys: Vec<ConflictedKey>,
    /// The conflicted values and the sets that have them.
    values: BTreeMap<EventNo, Mask>,
}

struct ConflictedKey {
    no: KeyNo,
    kind: Box<str>,
    state_key: Box<str>,
    /// The different values, ascending.
    values: SmallVec<[EventNo; 4]>,
}

impl Conflicts {
    fn read(sets: usize, conflicts: &[Conflict], graph: &mut Graph<'_>) -> Result<Conflicts, ResolveError> {
        let mut read = Conflicts {
            sets,
            keys: Vec::with_capacity(conflicts.len()),
            values: BTreeMap::new(),
        };
        for conflict in conflicts {
            let first = conflict.values.first().copied().flatten();
            if conflict.values.len() != sets || conflict.values.iter().all(|value| *value == first) {
                return Err(ResolveError::NoConflict(conflict.key));
            }
            let mut values: SmallVec<[EventNo; 4]> = conflict.values.iter().copied().flatten().collect();
            values.sort_unstable();
            values.dedup();
            let mut key: Option<(Box<str>, Box<str>)> = None;
            for value in &values {
                let node = graph.node(*value)?;
                let (kind, state_key) = node.key().ok_or(ResolveError::Mixed(conflict.key))?;
                match &key {
                    None => key = Some((kind.into(), state_key.into())),
                    Some((k, s)) if **k == *kind && **s == *state_key => {}
                    Some(_) => return Err(ResolveError::Mixed(conflict.key)),
                }
            }
            let Some((kind, state_key)) = key else {
                return Err(ResolveError::NoConflict(conflict.key));
            };
            for (set, value) in conflict.values.iter().enumerate() {
                if let Some(value) = value {
                    read.values
                        .entry(*value)
                        .or_insert_with(|| Mask::none(sets))
                        .insert(set);
                }
            }
            read.keys.push(ConflictedKey {
                no: conflict.key,
                kind,
                state_key,
                values,
            });
        }
        Ok(read)
    }
}

/// Some of the state sets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mask(SmallVec<[u64; 2]>);

impl Mask {
    fn none(sets: usize) -> Mask {
        Mask(SmallVec::from_elem(0, sets.div_ceil(64)))
    }

    fn insert(&mut self, set: usize) {
        if let Some(word) = self.0.get_mut(set / 64) {
            *word |= 1 << (set % 64);
        }
    }

    /// Adds what `other` has; tells whether that was more.
    fn merge(&mut self, other: &Mask) -> bool {
        let mut more = false;
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            more |= *other & !*word != 0;
            *word |= other;
        }
        more
    }

    fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}
