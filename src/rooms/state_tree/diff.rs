//! Comparing two maps.

use std::sync::Arc;

use hearth_storage::Error;

use super::node::{BITS, Node, NodeId, WIDTH};
use super::read::walk;
use super::store::{NodeStore, expect, load_root};

/// Visits each key whose value differs between the maps `a` and `b`, in the order of keys, with its
/// value in `a` and its value in `b`.
///
/// Equal subtrees are skipped unread, so the cost follows the number of differences.
pub fn diff(
    store: &dyn NodeStore,
    a: NodeId,
    b: NodeId,
    visit: &mut dyn FnMut(u32, Option<u32>, Option<u32>),
) -> Result<(), Error> {
    if a == b {
        return Ok(());
    }
    let load = |root: NodeId| {
        if root.is_empty() {
            Ok(None)
        } else {
            load_root(store, root).map(Some)
        }
    };
    let (node_a, node_b) = (load(a)?, load(b)?);
    let level = node_a
        .iter()
        .chain(&node_b)
        .map(|node| node.level())
        .max()
        .unwrap_or(0);
    compare(
        store,
        Side { id: a, node: node_a },
        Side { id: b, node: node_b },
        level,
        0,
        visit,
    )
}

/// One map's part of the subtree under comparison. The node is a lower one if this map is not as tall
/// as the other: it then stands in slot 0, as if nodes with that child alone were above it.
struct Side {
    id: NodeId,
    node: Option<Arc<Node>>,
}

impl Side {
    /// The child in `slot`, seen from a node of `level`: an id, and the node if it is at hand.
    fn child(&self, slot: usize, level: u8) -> Option<Side> {
        match self.node.as_deref()? {
            node if node.level() < level => (slot == 0).then(|| Side {
                id: self.id,
                node: self.node.clone(),
            }),
            Node::Inner(inner) => inner.child(slot).map(|id| Side { id, node: None }),
            Node::Leaf(_) => None,
        }
    }

    fn value(&self, slot: usize) -> Option<u32> {
        match self.node.as_deref()? {
            Node::Leaf(leaf) => leaf.value(slot),
            Node::Inner(_) => None,
        }
    }
}

fn compare(
    store: &dyn NodeStore,
    a: Side,
    b: Side,
    level: u8,
    prefix: u32,
    visit: &mut dyn FnMut(u32, Option<u32>, Option<u32>),
) -> Result<(), Error> {
    match (&a.node, &b.node) {
        (None, None) => return Ok(()),
        (Some(node), None) => {
            return walk(store, node, prefix, &mut |key, value| {
                visit(key, Some(value), None)
            });
        }
        (None, Some(node)) => {
            return walk(store, node, prefix, &mut |key, value| {
                visit(key, None, Some(value))
            });
        }
        (Some(_), Some(_)) => {}
    }
    if level == 0 {
        for slot in 0..WIDTH {
            let (old, new) = (a.value(slot), b.value(slot));
            if old != new {
                visit(prefix << BITS | slot as u32, old, new);
            }
        }
        return Ok(());
    }
    let mut pairs = Vec::with_capacity(WIDTH);
    for slot in 0..WIDTH {
        let (old, new) = (a.child(slot, level), b.child(slot, level));
        if old.as_ref().map(|side| side.id) != new.as_ref().map(|side| side.id) {
            pairs.push((slot, old, new));
        }
    }
    load_sides(store, &mut pairs, level - 1)?;
    for (slot, old, new) in pairs {
        let absent = || Side {
            id: NodeId::EMPTY,
            node: None,
        };
        let (old, new) = (old.unwrap_or_else(absent), new.unwrap_or_else(absent));
        compare(store, old, new, level - 1, prefix << BITS | slot as u32, visit)?;
    }
    Ok(())
}

/// Reads the nodes of `pairs` that are not at hand, asking once for all.
fn load_sides(
    store: &dyn NodeStore,
    pairs: &mut [(usize, Option<Side>, Option<Side>)],
    level: u8,
) -> Result<(), Error> {
    let mut sides: Vec<&mut Side> = pairs
        .iter_mut()
        .flat_map(|(_, old, new)| [old, new])
        .flatten()
        .filter(|side| side.node.is_none())
        .collect();
    let ids: Vec<NodeId> = sides.iter().map(|side| side.id).collect();
    for (side, node) in sides.iter_mut().zip(store.get_many(&ids)?) {
        side.node = Some(expect(node, level)?);
    }
    Ok(())
}
