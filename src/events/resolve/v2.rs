//! The algorithm of room version 2 and, with two changes, of version 12.

use std::rc::Rc;

use ruma::room_version_rules::StateResolutionV2Rules;

use super::difference::{auth_difference, conflicted_subgraph};
use super::graph::{Graph, Node};
use super::iterate::{State, apply};
use super::order::{mainline_order, power_order};
use super::{Conflicts, ResolveError, Resolved};

pub(super) fn resolve(
    graph: &mut Graph<'_>,
    conflicts: &Conflicts,
    version: &StateResolutionV2Rules,
) -> Result<Resolved, ResolveError> {
    let mut full = auth_difference(graph, conflicts)?;
    full.extend(conflicts.values.keys());
    if version.consider_conflicted_state_subgraph {
        full.extend(conflicted_subgraph(graph, conflicts)?);
    }
    let mut state = State::new(
        conflicts,
        !version.begin_iterative_auth_checks_with_empty_state_map,
    );
    // 1. and 2.
    let power_events = power_order(graph, &full)?;
    for node in &power_events {
        full.remove(&node.no);
    }
    apply(graph, &mut state, power_events)?;
    // 3. and 4.
    let rest: Vec<Rc<Node>> = full.iter().map(|no| graph.node(*no)).collect::<Result<_, _>>()?;
    let power_levels = state.get(graph, "m.room.power_levels", "")?;
    let rest = mainline_order(graph, power_levels, rest)?;
    apply(graph, &mut state, rest)?;
    // 5.
    state.finish(graph, conflicts)
}
