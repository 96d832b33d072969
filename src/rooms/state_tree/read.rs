//! Looking keys up, and walking over a whole map.

use std::ops::Range;
use std::sync::Arc;

use hearth_storage::Error;

use super::node::{BITS, Node, NodeId, level_for, slot_of, slots};
use super::store::{NodeStore, expect, load, load_root};

/// The value of `key` in the map `root`.
pub fn get(store: &dyn NodeStore, root: NodeId, key: u32) -> Result<Option<u32>, Error> {
    if root.is_empty() {
        return Ok(None);
    }
    let mut node = load_root(store, root)?;
    if level_for(key) > node.level() {
        return Ok(None);
    }
    loop {
        let (id, level) = match &*node {
            Node::Leaf(leaf) => return Ok(leaf.value(slot_of(key, 0))),
            Node::Inner(inner) => match inner.child(slot_of(key, inner.level)) {
                Some(id) => (id, inner.level - 1),
                None => return Ok(None),
            },
        };
        node = load(store, id, level)?;
    }
}

/// The values of `keys`, in their order. Each node on the way is read once, and those of a level are
/// asked for together.
pub fn get_many(store: &dyn NodeStore, root: NodeId, keys: &[u32]) -> Result<Vec<Option<u32>>, Error> {
    let mut values = vec![None; keys.len()];
    if root.is_empty() || keys.is_empty() {
        return Ok(values);
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_unstable_by_key(|at| keys[*at]);
    let node = load_root(store, root)?;
    let mut level = node.level();
    let within = order.partition_point(|at| level_for(keys[*at]) <= level);
    // The nodes of one level that are needed, each with the stretch of `order` that lies below it.
    let mut row: Vec<(Arc<Node>, Range<usize>)> = vec![(node, 0..within)];
    while level > 0 {
        let (mut ids, mut ranges) = (Vec::new(), Vec::new());
        for (node, range) in &row {
            let Node::Inner(inner) = &**node else { continue };
            let mut start = range.start;
            for group in
                order[range.clone()].chunk_by(|a, b| slot_of(keys[*a], level) == slot_of(keys[*b], level))
            {
                if let Some(id) = inner.child(slot_of(keys[group[0]], level)) {
                    ids.push(id);
                    ranges.push(start..start + group.len());
                }
                start += group.len();
            }
        }
        level -= 1;
        row = load_row(store, &ids, level)?.into_iter().zip(ranges).collect();
    }
    for (node, range) in row {
        let Node::Leaf(leaf) = &*node else { continue };
        for at in &order[range] {
            values[*at] = leaf.value(slot_of(keys[*at], 0));
        }
    }
    Ok(values)
}

fn load_row(store: &dyn NodeStore, ids: &[NodeId], level: u8) -> Result<Vec<Arc<Node>>, Error> {
    let nodes = store.get_many(ids)?;
    nodes.into_iter().map(|node| expect(node, level)).collect()
}

/// Visits every entry of the map `root` in the order of keys.
pub fn iter(store: &dyn NodeStore, root: NodeId, visit: &mut dyn FnMut(u32, u32)) -> Result<(), Error> {
    if root.is_empty() {
        return Ok(());
    }
    walk(store, &*load_root(store, root)?, 0, visit)
}

/// Visits every entry below `node`; `prefix` is the part of the keys that leads to it.
pub(super) fn walk(
    store: &dyn NodeStore,
    node: &Node,
    prefix: u32,
    visit: &mut dyn FnMut(u32, u32),
) -> Result<(), Error> {
    match node {
        Node::Leaf(leaf) => {
            for (slot, value) in slots(leaf.bitmap).zip(&leaf.values) {
                visit(prefix << BITS | slot as u32, *value);
            }
        }
        Node::Inner(inner) => {
            let below = load_row(store, &inner.children, inner.level - 1)?;
            for (slot, child) in slots(inner.bitmap).zip(below) {
                walk(store, &child, prefix << BITS | slot as u32, visit)?;
            }
        }
    }
    Ok(())
}

/// The number of entries in the map `root`; reads one node.
pub fn len(store: &dyn NodeStore, root: NodeId) -> Result<u64, Error> {
    if root.is_empty() {
        Ok(0)
    } else {
        Ok(load_root(store, root)?.count())
    }
}
