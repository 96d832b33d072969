//! The algorithm of room version 1.

use std::cmp::Reverse;
use std::rc::Rc;

use sha1::{Digest as _, Sha1};

use super::graph::{Graph, Node};
use super::iterate::{State, is_allowed};
use super::{ConflictedKey, Conflicts, ResolveError, Resolved};

pub(super) fn resolve(graph: &mut Graph<'_>, conflicts: &Conflicts) -> Result<Resolved, ResolveError> {
    let mut state = State::new(conflicts, true);
    // A key that some sets lack and on which the others agree is no conflict in this version.
    for key in &conflicts.keys {
        if let [only] = key.values[..] {
            state.add(&key.kind, &key.state_key, only);
        }
    }
    for pass in [Pass::PowerLevels, Pass::JoinRules, Pass::Members, Pass::Others] {
        // Within one pass, no key sees what another came to: the order of the keys must not matter.
        let mut results = Vec::new();
        let keys = conflicts.keys.iter();
        for key in keys.filter(|key| key.values.len() > 1 && Pass::of(key) == pass) {
            let events = ordered(graph, key)?;
            let chosen = match pass {
                Pass::Others => choose_by_authorization(graph, &mut state, events)?,
                _ => choose_by_succession(graph, &mut state, events)?,
            };
            results.extend(chosen.map(|node| (key, node.no)));
        }
        for (key, no) in results {
            state.add(&key.kind, &key.state_key, no);
        }
    }
    state.finish(graph, conflicts)
}

/// The conflicts that are resolved together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    PowerLevels,
    JoinRules,
    Members,
    Others,
}

impl Pass {
    fn of(key: &ConflictedKey) -> Pass {
        match &*key.kind {
            "m.room.power_levels" if key.state_key.is_empty() => Pass::PowerLevels,
            "m.room.join_rules" => Pass::JoinRules,
            "m.room.member" => Pass::Members,
            _ => Pass::Others,
        }
    }
}

/// The events of a key by ascending depth, then descending hash of the event id.
fn ordered(graph: &mut Graph<'_>, key: &ConflictedKey) -> Result<Vec<Rc<Node>>, ResolveError> {
    let nodes = key.values.iter().map(|no| graph.node(*no));
    let mut nodes: Vec<Rc<Node>> = nodes.collect::<Result<_, _>>()?;
    nodes.sort_by_cached_key(|node| {
        let hash: [u8; 20] = Sha1::digest(node.pdu().event_id.as_bytes()).into();
        (node.pdu().depth(), Reverse(hash))
    });
    Ok(nodes)
}

/// The first event, and those after it for as long as each is allowed by what came before.
fn choose_by_succession(
    graph: &mut Graph<'_>,
    state: &mut State,
    events: Vec<Rc<Node>>,
) -> Result<Option<Rc<Node>>, ResolveError> {
    let mut chosen: Option<Rc<Node>> = None;
    for node in events {
        if chosen.is_some() && !is_allowed(graph, state, &node, false)? {
            break;
        }
        if let Some((kind, state_key)) = node.key() {
            state.add(kind, state_key, node.no);
        }
        chosen = Some(node);
    }
    if let Some((kind, state_key)) = chosen.as_ref().and_then(|node| node.key()) {
        state.remove(kind, state_key);
    }
    Ok(chosen)
}

/// The last event that is allowed. Where none is, the specification has no answer, and servers take the first.
fn choose_by_authorization(
    graph: &mut Graph<'_>,
    state: &mut State,
    events: Vec<Rc<Node>>,
) -> Result<Option<Rc<Node>>, ResolveError> {
    for node in events.iter().rev() {
        if is_allowed(graph, state, node, false)? {
            return Ok(Some(node.clone()));
        }
    }
    Ok(events.into_iter().next())
}
