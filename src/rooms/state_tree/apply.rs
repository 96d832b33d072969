//! Changing a map, and making one in bulk.

use hearth_storage::Error;

use super::fresh::{Change, Fresh, Link, change, seal};
use super::node::{Node, NodeId, level_for};
use super::store::{NewNodes, NodeStore, Overlay, load, load_root};

/// Sets and removes keys of the map `root`, and gives the root of the changed map.
///
/// `new` gets exactly the nodes that the change made, on top of those it holds already, which are
/// read before `store`. Of several changes of one key the last counts. If nothing changes, the root
/// is the same and `new` gets nothing.
pub fn apply(
    store: &dyn NodeStore,
    root: NodeId,
    changes: &[(u32, Option<u32>)],
    new: &mut NewNodes,
) -> Result<NodeId, Error> {
    let changes = in_order(changes);
    let link = edit(
        &Overlay {
            base: store,
            new: &*new,
        },
        root,
        changes,
    )?;
    Ok(link.map_or(NodeId::EMPTY, |link| seal(link, new)))
}

/// Makes a map of `entries`, in any order; of several with one key the last counts. The nodes hold
/// nothing but the map.
pub fn build(entries: impl IntoIterator<Item = (u32, u32)>) -> (NodeId, NewNodes) {
    let changes: Vec<Change> = entries
        .into_iter()
        .map(|(key, value)| (key, Some(value)))
        .collect();
    let mut new = NewNodes::new();
    let root = apply(&NewNodes::new(), NodeId::EMPTY, &changes, &mut new)
        .expect("a map that starts empty reads no node");
    (root, new)
}

/// Ordered by key, the last change of each key alone.
fn in_order(changes: &[Change]) -> Vec<Change> {
    let mut ordered = changes.to_vec();
    ordered.sort_by_key(|(key, _)| *key);
    // `dedup_by` keeps the first of equal keys; the change that counts is moved there.
    ordered.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 = later.1;
        }
        same
    });
    ordered
}

fn edit(store: &Overlay<'_>, root: NodeId, mut changes: Vec<Change>) -> Result<Option<Link>, Error> {
    let needed = changes
        .iter()
        .rev()
        .find(|(_, value)| value.is_some())
        .map(|(key, _)| level_for(*key));
    let (link, level) = if root.is_empty() {
        (None, needed.unwrap_or(0))
    } else {
        let (link, level) = grow(root, &*load_root(store, root)?, needed.unwrap_or(0));
        (Some(link), level)
    };
    // What is left past the root's reach removes keys that are not there.
    changes.truncate(changes.partition_point(|(key, _)| level_for(*key) <= level));
    if changes.is_empty() {
        return Ok(link);
    }
    let changed = change(store, link, level, &changes)?;
    changed.link.map(|link| shrink(store, link, level)).transpose()
}

/// Puts nodes above the root until it has the level that the greatest new key needs.
fn grow(root: NodeId, node: &Node, needed: u8) -> (Link, u8) {
    let mut link = Link::Stored(root);
    for level in node.level() + 1..=needed {
        link = Link::Fresh(Fresh::above(link, level, node.count()));
    }
    (link, needed.max(node.level()))
}

/// Takes nodes off the top that only lead to slot 0, so that the root has the least level.
fn shrink(store: &Overlay<'_>, mut link: Link, mut level: u8) -> Result<Link, Error> {
    loop {
        link = match link {
            Link::Fresh(mut fresh) => match fresh.take_only_first() {
                Some(below) => below,
                None => return Ok(Link::Fresh(fresh)),
            },
            Link::Stored(id) => match &*load(store, id, level)? {
                Node::Inner(inner) if inner.bitmap == 1 => Link::Stored(inner.children[0]),
                _ => return Ok(Link::Stored(id)),
            },
        };
        level -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_change_of_a_key_counts() {
        let changes = [(2, Some(1)), (1, Some(1)), (2, None), (2, Some(3)), (1, None)];
        assert_eq!(in_order(&changes), [(1, None), (2, Some(3))]);
    }
}
