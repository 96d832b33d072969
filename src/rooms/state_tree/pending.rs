//! The nodes of states that the writer has decided and the disk does not show yet.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hearth_storage::{Error, Position};

use super::node::{Node, NodeId};
use super::store::{NewNodes, NodeStore};

/// One room's nodes on their way to the disk, each with the position at which it is there.
///
/// As `new` of an [`Overlay`](super::Overlay) over the stored nodes it lets the writer build the next
/// state on one that is not durable.
#[derive(Default)]
pub struct PendingNodes {
    // Two batches may make the same node; the later position counts, so that a node never goes early.
    nodes: HashMap<NodeId, (Arc<Node>, Position)>,
    batches: VecDeque<(Position, Vec<NodeId>)>,
}

impl PendingNodes {
    /// Adds the nodes of the batch that has position `at`; positions rise from call to call.
    pub fn add(&mut self, at: Position, new: &NewNodes) {
        if new.is_empty() {
            return;
        }
        let last = self.batches.back().map_or(0, |(last, _)| *last);
        assert!(at >= last, "a room's batches have rising positions");
        for (id, node) in new.nodes() {
            self.nodes.insert(id, (node.clone(), at));
        }
        self.batches
            .push_back((at, new.nodes().map(|(id, _)| id).collect()));
    }

    /// Forgets what is durable once everything up to `published` is.
    pub fn prune(&mut self, published: Position) {
        while self.batches.front().is_some_and(|(at, _)| *at <= published) {
            let Some((at, ids)) = self.batches.pop_front() else {
                return;
            };
            for id in ids {
                if let Entry::Occupied(node) = self.nodes.entry(id)
                    && node.get().1 <= at
                {
                    node.remove();
                }
            }
        }
    }

    /// The number of nodes that are not known to be durable.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether every node is known to be durable.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl NodeStore for PendingNodes {
    fn get(&self, id: NodeId) -> Result<Option<Arc<Node>>, Error> {
        Ok(self.nodes.get(&id).map(|(node, _)| node.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{apply, build, get};
    use super::*;

    #[test]
    fn forgets_only_what_is_durable() {
        let mut pending = PendingNodes::default();
        let (first, nodes) = build([(1, 1)]);
        pending.add(4, &nodes);
        let mut more = NewNodes::new();
        let second = apply(&pending, first, &[(1, Some(2))], &mut more).unwrap();
        pending.add(6, &more);
        // Back to the first state: its node is made again.
        let mut again = NewNodes::new();
        assert_eq!(
            apply(&pending, second, &[(1, Some(1))], &mut again).unwrap(),
            first
        );
        pending.add(9, &again);

        for (published, left) in [(3, 2), (4, 2), (6, 1), (8, 1)] {
            pending.prune(published);
            assert_eq!(pending.len(), left, "after {published}");
            assert_eq!(get(&pending, first, 1).unwrap(), Some(1));
        }
        pending.prune(9);
        assert!(pending.is_empty() && pending.batches.is_empty());
    }
}
