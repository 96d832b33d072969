//! A room's stored nodes, behind a cache that all rooms share.

use std::sync::Arc;

use hearth_storage::schema::room_state_node::RoomStateNodeKey;
use hearth_storage::{Batch, EntityKey, Error, Family, Reader};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::node::{Node, NodeId};
use super::store::{NewNodes, NodeStore, get_rest};

/// What an entry of the cache takes beside its node: key, reference counts, the cache's own links.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// For the cache's first estimate of how many nodes fit; about an inner node half full.
const TYPICAL_ENTRY_BYTES: u64 = 300;

/// Decoded nodes of all rooms, within a budget of bytes.
///
/// The room is part of the key although equal nodes have equal ids: the numbers in a node mean
/// something in their room alone, and a purged room's nodes age out by themselves.
pub struct NodeCache {
    nodes: Cache<(EntityKey, NodeId), Arc<Node>, ByMemory>,
}

#[derive(Clone)]
struct ByMemory;

impl Weighter<(EntityKey, NodeId), Arc<Node>> for ByMemory {
    fn weight(&self, _key: &(EntityKey, NodeId), node: &Arc<Node>) -> u64 {
        (node.memory_bytes() + ENTRY_OVERHEAD_BYTES) as u64
    }
}

impl NodeCache {
    /// A cache that holds about `capacity_bytes` of nodes.
    pub fn new(capacity_bytes: u64) -> NodeCache {
        let items = (capacity_bytes / TYPICAL_ENTRY_BYTES).max(1) as usize;
        NodeCache {
            nodes: Cache::with_weighter(items, capacity_bytes, ByMemory),
        }
    }

    /// What the cached nodes take.
    pub fn used_bytes(&self) -> u64 {
        self.nodes.weight()
    }
}

/// The stored state nodes of one room, read through the cache. Cheap to make for one operation.
pub struct CachedStore<'a> {
    reader: &'a dyn Reader,
    cache: &'a NodeCache,
    room: EntityKey,
}

impl<'a> CachedStore<'a> {
    /// The nodes of `room`.
    pub fn new(reader: &'a dyn Reader, cache: &'a NodeCache, room: EntityKey) -> CachedStore<'a> {
        CachedStore { reader, cache, room }
    }

    /// Adds the nodes to the batch that makes them durable, and to the cache, where the next change
    /// of the room looks for them.
    ///
    /// A node of a batch that is given up does no harm there: only a stored root leads to a node.
    pub fn put(&self, new: &NewNodes, batch: &mut Batch) {
        for (id, encoded) in new.encoded() {
            batch.put(Family::RoomStateNode, self.key(id), encoded);
        }
        for (id, node) in new.nodes() {
            self.keep(id, node.clone());
        }
    }

    fn key(&self, id: NodeId) -> Vec<u8> {
        RoomStateNodeKey {
            room: self.room,
            hash: id.0,
        }
        .encode()
    }

    fn keep(&self, id: NodeId, node: Arc<Node>) {
        self.cache.nodes.insert((self.room, id), node);
    }

    fn cached(&self, id: NodeId) -> Option<Arc<Node>> {
        self.cache.nodes.get(&(self.room, id))
    }

    /// Checks and caches what the disk gave.
    fn admit(&self, id: NodeId, bytes: Option<Vec<u8>>) -> Result<Option<Arc<Node>>, Error> {
        let Some(bytes) = bytes else { return Ok(None) };
        let node = Arc::new(Node::decode_checked(id, &bytes)?);
        self.keep(id, node.clone());
        Ok(Some(node))
    }
}

impl NodeStore for CachedStore<'_> {
    fn get(&self, id: NodeId) -> Result<Option<Arc<Node>>, Error> {
        match self.cached(id) {
            Some(node) => Ok(Some(node)),
            None => self.admit(id, self.reader.get(Family::RoomStateNode, &self.key(id))?),
        }
    }

    fn get_many(&self, ids: &[NodeId]) -> Result<Vec<Option<Arc<Node>>>, Error> {
        let found = ids.iter().map(|id| self.cached(*id)).collect();
        get_rest(found, ids, |rest| {
            let keys: Vec<Vec<u8>> = rest.iter().map(|id| self.key(*id)).collect();
            let rows = self.reader.multi_get(Family::RoomStateNode, &keys)?;
            rest.iter()
                .zip(rows)
                .map(|(id, bytes)| self.admit(*id, bytes))
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use hearth_storage::{Engine, MemoryEngine, slot_of};

    use super::super::{Overlay, PendingNodes, apply, build, get, iter};
    use super::*;

    fn room(no: u32) -> EntityKey {
        EntityKey {
            slot: slot_of("!room:example.org"),
            no,
        }
    }

    fn write(engine: &MemoryEngine, nodes: &NewNodes) {
        let mut batch = Batch::new();
        CachedStore::new(engine, &NodeCache::new(1 << 20), room(1)).put(nodes, &mut batch);
        engine.write(&batch, true).unwrap();
    }

    #[test]
    fn pending_then_from_disk_then_from_the_cache() {
        let engine = MemoryEngine::new();
        let cache = NodeCache::new(1 << 20);
        let stored = CachedStore::new(&engine, &cache, room(1));
        let (first, nodes) = build((0..100).map(|key| (key, key + 7)));
        let mut pending = PendingNodes::default();
        pending.add(1, &nodes);
        // The next state builds on one that is not on disk.
        let mut more = NewNodes::new();
        let ahead = Overlay {
            base: &stored,
            new: &pending,
        };
        let second = apply(&ahead, first, &[(3, Some(1))], &mut more).unwrap();
        assert!(get(&stored, second, 3).is_err());
        write(&engine, &nodes);
        write(&engine, &more);

        assert_eq!(get(&stored, second, 3).unwrap(), Some(1));
        assert_eq!(get(&stored, first, 3).unwrap(), Some(10));
        let mut entries = 0;
        iter(&stored, second, &mut |_, _| entries += 1).unwrap();
        assert_eq!(entries, 100);
        assert!(cache.used_bytes() > 0);

        let empty = MemoryEngine::new();
        assert_eq!(
            get(&CachedStore::new(&empty, &cache, room(1)), second, 3).unwrap(),
            Some(1)
        );
        let other_room = CachedStore::new(&engine, &cache, room(2));
        assert!(get(&other_room, second, 3).is_err());
    }

    #[test]
    fn put_caches() {
        let (engine, cache) = (MemoryEngine::new(), NodeCache::new(1 << 20));
        let stored = CachedStore::new(&engine, &cache, room(1));
        let (root, nodes) = build([(1, 1)]);
        stored.put(&nodes, &mut Batch::new());
        assert_eq!(get(&stored, root, 1).unwrap(), Some(1));
    }

    #[test]
    fn corrupted_row_is_an_error() {
        let engine = MemoryEngine::new();
        let (root, nodes) = build((0..100).map(|key| (key, key)));
        write(&engine, &nodes);
        let (id, encoded) = nodes.encoded().next().unwrap();
        for at in 0..encoded.len() {
            let cache = NodeCache::new(1 << 20);
            let cold = CachedStore::new(&engine, &cache, room(1));
            let mut bytes = encoded.to_vec();
            bytes[at] ^= 1;
            let mut batch = Batch::new();
            batch.put(Family::RoomStateNode, cold.key(id), bytes);
            engine.write(&batch, true).unwrap();
            assert!(iter(&cold, root, &mut |_, _| {}).is_err());
        }
    }
}
