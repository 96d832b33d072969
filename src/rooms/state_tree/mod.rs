//! The persistent map that holds a room's state: short state key → short event id.
//!
//! A state is named by the id of its root node. States share the subtrees they have in common, so a
//! state event writes only the path from one leaf to the root, and two states are compared in time
//! that follows their differences.
//!
//! State keys are numbered densely from zero, so the tree is a plain radix tree of 32 ways over the
//! number: a leaf holds the entries that share `key >> 5`, an inner node of level `n` the subtrees
//! that share `key >> 5(n + 1)`. The root has the least level that reaches the greatest key, and
//! empty nodes do not exist. **Invariant:** the shape follows from the content alone, and a node's id
//! is a hash of its encoding, so two maps with the same entries have the same root id whoever built
//! them and in whatever order.
//!
//! | to | call | cost |
//! |---|---|---|
//! | look up | [`get`], [`get_many`] | O(depth) a key |
//! | change | [`apply`] | the changed paths, into [`NewNodes`] |
//! | compare | [`diff`] | O(differences · depth) |
//! | walk | [`iter`] | O(n) |
//! | make in bulk | [`build`] | O(n) |

mod apply;
mod cached;
mod diff;
mod fresh;
mod node;
mod pending;
mod read;
mod store;
#[cfg(test)]
mod tests;

pub use apply::{apply, build};
pub use cached::{CachedStore, NodeCache};
pub use diff::diff;
pub use node::{Inner, Leaf, Node, NodeId};
pub use pending::PendingNodes;
pub use read::{get, get_many, iter, len};
pub use store::{NewNodes, NodeStore, Overlay};
