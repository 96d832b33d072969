//! Where nodes come from: the stores, and the nodes that a change has made.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_storage::Error;

use super::node::{Node, NodeId};

/// What is wrong when a parent or a stored root names a node that is not there.
const MISSING: Error = Error::Corrupt("state map (a node is missing)");

/// A source of nodes. What it gives for an id never changes, because the id is a hash of the node.
pub trait NodeStore {
    /// The node with this id, if the store has it.
    fn get(&self, id: NodeId) -> Result<Option<Arc<Node>>, Error>;

    /// The nodes with these ids, in their order. A store that reads from a disk asks once for all.
    fn get_many(&self, ids: &[NodeId]) -> Result<Vec<Option<Arc<Node>>>, Error> {
        ids.iter().map(|id| self.get(*id)).collect()
    }
}

/// The nodes made by one or more changes, not yet stored. It is a store itself, so that a later
/// change can build on an earlier one of the same batch.
#[derive(Clone, Debug, Default)]
pub struct NewNodes {
    // Ordered, so that equal changes write equal batches.
    nodes: BTreeMap<NodeId, (Arc<Node>, Vec<u8>)>,
}

impl NewNodes {
    /// No nodes.
    pub fn new() -> NewNodes {
        NewNodes::default()
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The size of all encoded nodes together, without keys.
    pub fn bytes(&self) -> usize {
        self.nodes.values().map(|(_, encoded)| encoded.len()).sum()
    }

    /// Every node with its id and encoding, in the order of ids: what goes into the write batch.
    pub fn encoded(&self) -> impl Iterator<Item = (NodeId, &[u8])> {
        self.nodes
            .iter()
            .map(|(id, (_, encoded))| (*id, encoded.as_slice()))
    }

    /// Every node with its id, in the order of ids.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Arc<Node>)> {
        self.nodes.iter().map(|(id, (node, _))| (*id, node))
    }

    /// Forgets all nodes.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    /// Takes over the nodes of `other`.
    pub fn absorb(&mut self, other: NewNodes) {
        self.nodes.extend(other.nodes);
    }

    /// Adds copies of the nodes of `other`.
    pub fn extend(&mut self, other: &NewNodes) {
        for (id, entry) in &other.nodes {
            self.nodes.entry(*id).or_insert_with(|| entry.clone());
        }
    }

    /// Adds a node and gives its id.
    pub(super) fn add(&mut self, node: Node) -> NodeId {
        let encoded = node.encode();
        let id = NodeId::of(&encoded);
        self.nodes.entry(id).or_insert_with(|| (Arc::new(node), encoded));
        id
    }
}

impl NodeStore for NewNodes {
    fn get(&self, id: NodeId) -> Result<Option<Arc<Node>>, Error> {
        Ok(self.nodes.get(&id).map(|(node, _)| node.clone()))
    }
}

/// `new` before `base`: reads states of which some nodes are not stored yet.
#[derive(Clone, Copy)]
pub struct Overlay<'a> {
    /// What is stored already.
    pub base: &'a dyn NodeStore,
    /// What was made since.
    pub new: &'a dyn NodeStore,
}

impl NodeStore for Overlay<'_> {
    fn get(&self, id: NodeId) -> Result<Option<Arc<Node>>, Error> {
        match self.new.get(id)? {
            Some(node) => Ok(Some(node)),
            None => self.base.get(id),
        }
    }

    fn get_many(&self, ids: &[NodeId]) -> Result<Vec<Option<Arc<Node>>>, Error> {
        get_rest(self.new.get_many(ids)?, ids, |rest| self.base.get_many(rest))
    }
}

/// Fills the gaps of `found` with what `more` finds, asked once for all of them.
pub(super) fn get_rest(
    mut found: Vec<Option<Arc<Node>>>,
    ids: &[NodeId],
    more: impl FnOnce(&[NodeId]) -> Result<Vec<Option<Arc<Node>>>, Error>,
) -> Result<Vec<Option<Arc<Node>>>, Error> {
    let gaps: Vec<usize> = (0..ids.len()).filter(|at| found[*at].is_none()).collect();
    if !gaps.is_empty() {
        let rest: Vec<NodeId> = gaps.iter().map(|at| ids[*at]).collect();
        for (at, node) in gaps.into_iter().zip(more(&rest)?) {
            found[at] = node;
        }
    }
    Ok(found)
}

/// The root node of a map that is not empty.
pub(super) fn load_root(store: &dyn NodeStore, root: NodeId) -> Result<Arc<Node>, Error> {
    store.get(root)?.ok_or(MISSING)
}

/// The node right below one of `level + 1`. The check of the level also bounds every descent.
pub(super) fn load(store: &dyn NodeStore, id: NodeId, level: u8) -> Result<Arc<Node>, Error> {
    expect(store.get(id)?, level)
}

/// What [`load`] gives, for a node that was read with others.
pub(super) fn expect(node: Option<Arc<Node>>, level: u8) -> Result<Arc<Node>, Error> {
    let node = node.ok_or(MISSING)?;
    if node.level() != level {
        return Err(Error::Corrupt("state map node (at the wrong level)"));
    }
    Ok(node)
}
