//! Which events a resolution replays.

use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::ops::ControlFlow;

use super::graph::Graph;
use super::{Conflicts, EventNo, Mask, ResolveError};

/// The events that are in the auth chains of some but not all state sets ("Auth difference").
pub(super) fn auth_difference(
    graph: &mut Graph<'_>,
    conflicts: &Conflicts,
) -> Result<BTreeSet<EventNo>, ResolveError> {
    let mut walk = Walk {
        shared: SharedChain::default(),
        sets_of: HashMap::new(),
        queue: BinaryHeap::new(),
    };
    for (value, sets) in &conflicts.values {
        for cited in graph.auth(*value)? {
            walk.reach(graph, conflicts, cited, sets)?;
        }
    }
    // With ascending numbers the greatest of the queue is never reached again. Otherwise it may be, and passes on what is new.
    while let Some(no) = walk.queue.pop() {
        let Some((sets, queued)) = walk.sets_of.get_mut(&no) else {
            continue;
        };
        *queued = false;
        let sets = sets.clone();
        for cited in graph.auth(no)? {
            walk.reach(graph, conflicts, cited, &sets)?;
        }
    }
    let reached = walk.sets_of.into_iter();
    Ok(reached
        .filter(|(_, (sets, _))| sets.len() < conflicts.sets)
        .map(|(no, _)| no)
        .collect())
}

/// The walk from the conflicted values along what they cite.
struct Walk {
    shared: SharedChain,
    /// The sets in whose chain each event was found, and whether it is in the queue.
    sets_of: HashMap<EventNo, (Mask, bool)>,
    queue: BinaryHeap<EventNo>,
}

impl Walk {
    /// Notes that an event is in the chains of these sets.
    fn reach(
        &mut self,
        graph: &mut Graph<'_>,
        conflicts: &Conflicts,
        no: EventNo,
        sets: &Mask,
    ) -> Result<(), ResolveError> {
        if !self.sets_of.contains_key(&no) && self.shared.contains(graph, conflicts, no)? {
            return Ok(());
        }
        let (known, queued) = self
            .sets_of
            .entry(no)
            .or_insert_with(|| (Mask::none(conflicts.sets), false));
        if known.merge(sets) && !*queued {
            *queued = true;
            self.queue.push(no);
        }
        Ok(())
    }
}

/// The auth chain of the unconflicted state, as far as it was asked for.
#[derive(Default)]
struct SharedChain {
    known: HashMap<EventNo, bool>,
}

/// An event on the way up, and those of its citers that are still to be looked at.
struct Rung {
    no: EventNo,
    citers: Vec<EventNo>,
}

/// What those that cite an event tell of it.
enum Citers {
    /// One of them shows that the event is in the shared chain.
    Decided,
    /// These may.
    Open(Vec<EventNo>),
}

impl SharedChain {
    /// Whether the chain of an unconflicted entry has the event: whether one of the events that cite it, or cite one that cites it, and so on,
    /// is an unconflicted entry. A search in depth, which remembers its answers for all events on its way.
    fn contains(
        &mut self,
        graph: &mut Graph<'_>,
        conflicts: &Conflicts,
        no: EventNo,
    ) -> Result<bool, ResolveError> {
        if let Some(known) = self.known.get(&no) {
            return Ok(*known);
        }
        let mut ladder: Vec<Rung> = Vec::new();
        let mut finished: HashSet<EventNo> = HashSet::new();
        let mut on_ladder: HashSet<EventNo> = HashSet::new();
        let mut cyclic = false;
        let mut next = no;
        let found = loop {
            match self.citers(graph, conflicts, next)? {
                Citers::Decided => {
                    self.known.insert(next, true);
                    break true;
                }
                Citers::Open(citers) => {
                    on_ladder.insert(next);
                    ladder.push(Rung { no: next, citers });
                }
            }
            match climb(&mut ladder, &mut finished, &mut on_ladder, &mut cyclic) {
                Some(citer) => next = citer,
                None => break false,
            }
        };
        if found {
            self.known.extend(ladder.iter().map(|rung| (rung.no, true)));
        }
        // What was looked through without success is not in the chain, unless it led in a circle to an event that is.
        if !found || !cyclic {
            self.known.extend(finished.into_iter().map(|no| (no, false)));
        }
        Ok(found)
    }

    fn citers(
        &self,
        graph: &mut Graph<'_>,
        conflicts: &Conflicts,
        no: EventNo,
    ) -> Result<Citers, ResolveError> {
        let mut open = Vec::new();
        let mut decided: Result<bool, ResolveError> = Ok(false);
        let (source, newest) = (graph.source, graph.newest);
        let mut visit = |citer: EventNo| {
            decided = graph.step().and_then(|()| match self.known.get(&citer) {
                Some(true) => Ok(true),
                _ if citer > newest || conflicts.values.contains_key(&citer) => Ok(false),
                _ => source.is_unconflicted(citer).map_err(ResolveError::Source),
            });
            if !matches!(decided, Ok(false)) {
                return ControlFlow::Break(());
            }
            if citer <= newest && !self.known.contains_key(&citer) {
                open.push(citer);
            }
            ControlFlow::Continue(())
        };
        source.cited_by(no, &mut visit).map_err(ResolveError::Source)?;
        Ok(if decided? {
            Citers::Decided
        } else {
            // They are taken from the end.
            open.reverse();
            Citers::Open(open)
        })
    }
}

/// The next event to look at: a citer of the topmost rung that has one left. Rungs without are taken away.
fn climb(
    ladder: &mut Vec<Rung>,
    finished: &mut HashSet<EventNo>,
    on_ladder: &mut HashSet<EventNo>,
    cyclic: &mut bool,
) -> Option<EventNo> {
    loop {
        let top = ladder.last_mut()?;
        match top.citers.pop() {
            Some(citer) if on_ladder.contains(&citer) => *cyclic = true,
            Some(citer) if finished.contains(&citer) => {}
            Some(citer) => return Some(citer),
            None => {
                finished.insert(top.no);
                on_ladder.remove(&top.no);
                ladder.pop();
            }
        }
    }
}

/// The events on paths from one conflicted value to another ("Conflicted state subgraph").
pub(super) fn conflicted_subgraph(
    graph: &mut Graph<'_>,
    conflicts: &Conflicts,
) -> Result<BTreeSet<EventNo>, ResolveError> {
    let Some((lowest, _)) = conflicts.values.first_key_value() else {
        return Ok(BTreeSet::new());
    };
    // Below the conflicted value with the lowest number none is left to be reached.
    let lowest = if graph.numbers_ascend { *lowest } else { 0 };
    let mut citers: HashMap<EventNo, Vec<EventNo>> = HashMap::new();
    let mut stack: Vec<EventNo> = conflicts.values.keys().copied().collect();
    let mut walked: HashSet<EventNo> = stack.iter().copied().collect();
    while let Some(no) = stack.pop() {
        for cited in graph.auth(no)? {
            if cited < lowest {
                continue;
            }
            citers.entry(cited).or_default().push(no);
            if walked.insert(cited) {
                stack.push(cited);
            }
        }
    }
    // Everything that was walked can be reached from a conflicted value. Of that, what leads to one is found from those.
    let mut between = BTreeSet::new();
    let mut stack: Vec<EventNo> = conflicts.values.keys().copied().collect();
    while let Some(no) = stack.pop() {
        for citer in citers.get(&no).into_iter().flatten() {
            graph.step()?;
            if between.insert(*citer) {
                stack.push(*citer);
            }
        }
    }
    Ok(between)
}
