//! The orders in which events are replayed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use ruma::OwnedEventId;

use super::graph::{Graph, Node};
use super::{EventNo, ResolveError};
use crate::auth_state::AuthContent;
use crate::{CreateInfo, Membership, Power, PowerField, PowerLevels, PowerView};

/// Whether an event might take from somebody what he may do ("Power events"). The create event counts as one: the specification does not
/// name it, but servers agree.
pub(super) fn is_power_event(graph: &Graph<'_>, node: &Node) -> bool {
    match node.key() {
        Some(("m.room.power_levels" | "m.room.join_rules" | "m.room.create", state_key)) => {
            state_key.is_empty()
        }
        Some(("m.room.member", state_key)) => {
            let AuthContent::Member(Some(member)) = node.content(graph.rules) else {
                return false;
            };
            let removes = matches!(member.membership, Membership::Leave | Membership::Ban);
            removes && state_key != node.pdu().sender()
        }
        _ => false,
    }
}

/// The power events among `full`, and what of `full` they build upon, in the order of "Reverse topological power ordering".
///
/// NOTSPEC: the specification enlarges the power events by all of their auth chain that is in the full conflicted set. Servers look for it
/// along events of that set only, and what every server does is what counts here.
pub(super) fn power_order(
    graph: &mut Graph<'_>,
    full: &BTreeSet<EventNo>,
) -> Result<Vec<Rc<Node>>, ResolveError> {
    let mut stack: Vec<EventNo> = Vec::new();
    for no in full {
        let node = graph.node(*no)?;
        if is_power_event(graph, &node) {
            stack.push(*no);
        }
    }
    let mut chosen: HashSet<EventNo> = stack.iter().copied().collect();
    let mut citers: HashMap<EventNo, Vec<EventNo>> = HashMap::new();
    // How many of the events that an event cites are still to come.
    let mut waits_for: HashMap<EventNo, usize> = HashMap::new();
    let mut ready = BinaryHeap::new();
    while let Some(no) = stack.pop() {
        let mut cited = graph.auth(no)?;
        cited.retain(|cited| full.contains(cited));
        cited.sort_unstable();
        cited.dedup();
        for cited in &cited {
            citers.entry(*cited).or_default().push(no);
            if chosen.insert(*cited) {
                stack.push(*cited);
            }
        }
        if cited.is_empty() {
            ready.push(Reverse(Rank::of(graph, no)?));
        }
        waits_for.insert(no, cited.len());
    }
    let mut sorted = Vec::with_capacity(chosen.len());
    while let Some(Reverse(rank)) = ready.pop() {
        sorted.push(graph.node(rank.no)?);
        for citer in citers.get(&rank.no).into_iter().flatten() {
            let Some(left) = waits_for.get_mut(citer) else {
                continue;
            };
            *left -= 1;
            if *left == 0 {
                ready.push(Reverse(Rank::of(graph, *citer)?));
            }
        }
    }
    Ok(sorted)
}

/// An event's rank among those that might come next.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    power: Reverse<Power>,
    origin_server_ts: u64,
    event_id: OwnedEventId,
    no: EventNo,
}

impl Rank {
    fn of(graph: &mut Graph<'_>, no: EventNo) -> Result<Rank, ResolveError> {
        let node = graph.node(no)?;
        Ok(Rank {
            power: Reverse(sender_power(graph, &node)?),
            origin_server_ts: node.pdu().origin_server_ts(),
            event_id: node.pdu().event_id.clone(),
            no,
        })
    }
}

/// The power of an event's sender by the event's own `auth_events`.
fn sender_power(graph: &mut Graph<'_>, node: &Node) -> Result<Power, ResolveError> {
    let mut create: Option<Arc<CreateInfo>> = None;
    let mut levels: Option<Arc<PowerLevels>> = None;
    if graph.rules.authorization.room_create_event_id_as_room_id {
        let no = graph.source.create().map_err(ResolveError::Source)?;
        if let AuthContent::Create(info) = graph.node(no)?.content(graph.rules) {
            create = info.clone();
        }
    }
    for no in node.auth() {
        match graph.node(*no)?.content(graph.rules) {
            AuthContent::Create(info) if create.is_none() => create = info.clone(),
            AuthContent::PowerLevels(info) if levels.is_none() => levels = Some(info.clone()),
            _ => {}
        }
    }
    let sender = node.pdu().sender();
    Ok(match (create, levels) {
        (Some(create), levels) => PowerView::new(&create, levels.as_deref()).user(sender),
        (None, Some(levels)) => {
            let default = levels.field(PowerField::UsersDefault);
            Power::Level(levels.users.get(sender).copied().unwrap_or(default))
        }
        (None, None) => Power::Level(PowerField::UsersDefault.default_level()),
    })
}

/// Sorts events by "Mainline ordering based on" these power levels.
pub(super) fn mainline_order(
    graph: &mut Graph<'_>,
    power_levels: Option<EventNo>,
    events: Vec<Rc<Node>>,
) -> Result<Vec<Rc<Node>>, ResolveError> {
    if events.len() < 2 {
        return Ok(events);
    }
    let mut mainline = Mainline::default();
    if let Some(no) = power_levels {
        let node = graph.node(no)?;
        mainline.add(node);
    }
    let mut ranked = Vec::with_capacity(events.len());
    for node in events {
        let position = mainline.position(graph, &node)?;
        ranked.push((Reverse(position), node));
    }
    ranked.sort_by(|(position, node), (other_position, other)| {
        let key = |node: &Node| node.pdu().origin_server_ts();
        position
            .cmp(other_position)
            .then_with(|| key(node).cmp(&key(other)))
            .then_with(|| node.pdu().event_id.cmp(&other.pdu().event_id))
    });
    Ok(ranked.into_iter().map(|(_, node)| node).collect())
}

/// Farther back than any place of the mainline.
const NOT_ON_MAINLINE: usize = usize::MAX;

/// Power levels, those they replaced, and so on; continued only as far as is asked for.
#[derive(Default)]
struct Mainline {
    places: HashMap<EventNo, usize>,
    /// The last one so far; `None` when nothing comes after it.
    last: Option<Rc<Node>>,
    /// The positions of events whose power levels are these.
    positions: HashMap<EventNo, usize>,
}

impl Mainline {
    fn add(&mut self, node: Rc<Node>) {
        // A circle ends where it closes.
        let place = self.places.len();
        self.last = match self.places.contains_key(&node.no) {
            true => None,
            false => {
                self.places.insert(node.no, place);
                Some(node)
            }
        };
    }

    /// The place of power levels on the mainline.
    fn place(&mut self, graph: &mut Graph<'_>, no: EventNo) -> Result<Option<usize>, ResolveError> {
        loop {
            if let Some(place) = self.places.get(&no) {
                return Ok(Some(*place));
            }
            let Some(last) = &self.last else { return Ok(None) };
            if graph.numbers_ascend && last.no < no {
                return Ok(None);
            }
            match graph.power_levels_of(&last.clone())? {
                Some(next) => self.add(next),
                None => self.last = None,
            }
        }
    }

    /// How far back the mainline has the power levels that an event builds upon ("mainline position").
    fn position(&mut self, graph: &mut Graph<'_>, node: &Node) -> Result<usize, ResolveError> {
        let mut passed: Vec<EventNo> = Vec::new();
        let mut levels = graph.power_levels_of(node)?;
        let position = loop {
            let Some(current) = levels else {
                break NOT_ON_MAINLINE;
            };
            if let Some(position) = self.positions.get(&current.no) {
                break *position;
            }
            if passed.contains(&current.no) {
                break NOT_ON_MAINLINE;
            }
            passed.push(current.no);
            if let Some(place) = self.place(graph, current.no)? {
                break place;
            }
            levels = graph.power_levels_of(&current)?;
        };
        self.positions.extend(passed.into_iter().map(|no| (no, position)));
        Ok(position)
    }
}
