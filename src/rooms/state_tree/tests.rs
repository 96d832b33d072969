//! The map against a `BTreeMap`, and the costs it promises.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_storage::Error;
use proptest::collection::vec;
use proptest::prelude::*;

use super::node::Inner;
use super::*;

type Model = BTreeMap<u32, u32>;
type Changes = Vec<(u32, Option<u32>)>;

/// Counts reads, to prove costs.
struct Counting<'a> {
    nodes: &'a NewNodes,
    reads: Cell<usize>,
}

impl NodeStore for Counting<'_> {
    fn get(&self, id: NodeId) -> Result<Option<Arc<Node>>, Error> {
        self.reads.set(self.reads.get() + 1);
        self.nodes.get(id)
    }
}

/// Holds whatever bytes a disk may give, without the check of the hash.
struct Raw(BTreeMap<NodeId, Vec<u8>>);

impl NodeStore for Raw {
    fn get(&self, id: NodeId) -> Result<Option<Arc<Node>>, Error> {
        self.0
            .get(&id)
            .map(|bytes| Node::decode(bytes).map(Arc::new))
            .transpose()
    }
}

/// Keys of every magnitude, close enough together that they collide and nodes fill and empty.
fn key() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..70u32,
        3 => 0..3000u32,
        1 => 0..200_000u32,
        1 => prop_oneof![Just(u32::MAX), Just(1 << 30), Just((1 << 30) - 1), any::<u32>()],
    ]
}

fn changes() -> impl Strategy<Value = Changes> {
    vec(
        (
            key(),
            prop_oneof![3 => (0..4u32).prop_map(Some), 2 => Just(None), 1 => any::<u32>().prop_map(Some)],
        ),
        0..40,
    )
}

fn update(model: &mut Model, changes: &[(u32, Option<u32>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => model.insert(*key, *value),
            None => model.remove(key),
        };
    }
}

fn entries(store: &dyn NodeStore, root: NodeId) -> Vec<(u32, u32)> {
    let mut entries = Vec::new();
    iter(store, root, &mut |key, value| entries.push((key, value))).unwrap();
    entries
}

fn difference(a: &Model, b: &Model) -> Vec<(u32, Option<u32>, Option<u32>)> {
    let mut keys: Vec<u32> = a.keys().chain(b.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    let both = keys
        .into_iter()
        .map(|key| (key, a.get(&key).copied(), b.get(&key).copied()));
    both.filter(|(_, a, b)| a != b).collect()
}

proptest! {
    #[test]
    fn agrees_with_a_btree_map(steps in vec(changes(), 1..12), probes in vec(key(), 0..20)) {
        let mut nodes = NewNodes::new();
        let mut states = vec![(NodeId::EMPTY, Model::new())];
        for changes in &steps {
            let (root, mut model) = states.last().unwrap().clone();
            // The step's nodes apart from the rest, as the batches of a room have them.
            let mut new = NewNodes::new();
            let root = apply(&nodes, root, changes, &mut new).unwrap();
            nodes.absorb(new);
            update(&mut model, changes);

            prop_assert_eq!(entries(&nodes, root), model.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(len(&nodes, root).unwrap(), model.len() as u64);
            let keys: Vec<u32> = probes.iter().copied().chain(changes.iter().map(|change| change.0)).collect();
            let expected: Vec<_> = keys.iter().map(|key| model.get(key).copied()).collect();
            let single: Vec<_> = keys.iter().map(|key| get(&nodes, root, *key).unwrap()).collect();
            prop_assert_eq!(&single, &expected);
            prop_assert_eq!(&get_many(&nodes, root, &keys).unwrap(), &expected);

            // The shape depends on content alone: built at once, the map is the same.
            let (built, built_nodes) = build(model.clone());
            prop_assert_eq!(built, root);
            for (id, _) in built_nodes.nodes() {
                prop_assert!(nodes.get(id).unwrap().is_some());
            }
            states.push((root, model));
        }
        for (a, model_a) in &states {
            for (b, model_b) in &states {
                let mut seen = Vec::new();
                diff(&nodes, *a, *b, &mut |key, old, new| seen.push((key, old, new))).unwrap();
                prop_assert_eq!(seen, difference(model_a, model_b));
            }
        }
    }

    #[test]
    fn order_of_insertion_does_not_matter(
        entries in vec((key(), 0..1000u32), 0..60).prop_map(Model::from_iter)
            .prop_flat_map(|model| Just(model.into_iter().collect::<Vec<_>>()).prop_shuffle()),
        cuts in vec(1..10usize, 60),
    ) {
        let mut nodes = NewNodes::new();
        let (mut root, mut rest) = (NodeId::EMPTY, entries.as_slice());
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            let changes: Changes = now.iter().map(|(key, value)| (*key, Some(*value))).collect();
            root = apply(&NewNodes::new(), root, &changes, &mut nodes).unwrap();
            rest = later;
        }
        prop_assert_eq!(root, build(entries.clone()).0);
        // And away again, one by one, to the empty map.
        for (key, _) in entries {
            root = apply(&NewNodes::new(), root, &[(key, None)], &mut nodes).unwrap();
        }
        prop_assert_eq!(root, NodeId::EMPTY);
    }

    /// A change makes just the nodes of the new map that the old one lacks.
    #[test]
    fn writes_no_node_in_vain(first in changes(), second in changes()) {
        let mut model = Model::new();
        update(&mut model, &first);
        let (before, old) = build(model.clone());
        let mut new = NewNodes::new();
        apply(&old, before, &second, &mut new).unwrap();
        update(&mut model, &second);
        let whole = build(model).1;
        for (id, _) in new.nodes() {
            prop_assert!(whole.get(id).unwrap().is_some());
        }
        for (id, _) in whole.nodes() {
            prop_assert!(new.get(id).unwrap().is_some() || old.get(id).unwrap().is_some());
        }
    }

    /// Whatever the disk gives, every operation ends with a value or an error.
    #[test]
    fn damaged_nodes_never_panic(
        content in changes(),
        second in changes(),
        damage in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
        swap in any::<bool>(),
    ) {
        let mut model = Model::new();
        update(&mut model, &content);
        let (a, mut nodes) = build(model);
        let b = apply(&NewNodes::new(), a, &second, &mut nodes).unwrap();
        let mut raw: BTreeMap<NodeId, Vec<u8>> =
            nodes.encoded().map(|(id, encoded)| (id, encoded.to_vec())).collect();
        let ids: Vec<NodeId> = raw.keys().copied().collect();
        for (node, at, byte) in damage {
            let Some(id) = (!ids.is_empty()).then(|| *node.get(&ids)) else { break };
            if swap {
                let other = raw[at.get(&ids)].clone();
                raw.insert(id, other);
            } else if let Some(bytes) = raw.get_mut(&id) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let store = Raw(raw);
        let keys: Vec<u32> = content.iter().map(|change| change.0).collect();
        for key in &keys {
            let _ = get(&store, a, *key);
        }
        let _ = get_many(&store, a, &keys);
        let _ = iter(&store, a, &mut |_, _| {});
        let _ = diff(&store, a, b, &mut |_, _, _| {});
        let _ = apply(&store, a, &second, &mut NewNodes::new());
        let _ = len(&store, a);
    }
}

/// A room of `size` members: keys from zero, events in the order of joining with gaps.
fn members(size: u32) -> (NodeId, NewNodes) {
    build((0..size).map(|key| (key, key * 9)))
}

#[test]
fn cost_of_one_change() {
    for size in [1, 31, 32, 33, 100, 1024, 1025, 10_000, 32_768, 32_769, 100_000] {
        let (root, nodes) = members(size);
        let depth = usize::from(nodes.get(root).unwrap().unwrap().level()) + 1;
        for (key, value, grown) in [
            (0, Some(u32::MAX), 0),
            (size / 2, Some(1_000_000), 0),
            (size / 2, None, 0),
            (size, Some(size * 9), 1),
        ] {
            let store = Counting {
                nodes: &nodes,
                reads: Cell::new(0),
            };
            let mut new = NewNodes::new();
            let changed = apply(&store, root, &[(key, value)], &mut new).unwrap();
            assert_ne!(changed, root);
            assert!(new.len() <= depth + grown, "{size}: {} nodes", new.len());
            // One read more to see the root's level.
            assert!(
                store.reads.get() <= depth + 1,
                "{size}: {} reads",
                store.reads.get()
            );
            let keys = new.len() * 22;
            assert!(
                new.bytes() + keys <= 2_200,
                "{size}: {} bytes",
                new.bytes() + keys
            );
        }
    }
}

#[test]
fn cost_of_reads() {
    let (root, mut nodes) = members(100_000);
    let changes: Changes = (0..10).map(|n| (n * 9_999, Some(n + 1))).collect();
    let other = apply(&NewNodes::new(), root, &changes, &mut nodes).unwrap();
    let depth = 4;
    let store = Counting {
        nodes: &nodes,
        reads: Cell::new(0),
    };

    assert_eq!(get(&store, root, 99_999).unwrap(), Some(99_999 * 9));
    assert_eq!(store.reads.replace(0), depth);

    assert_eq!(
        get_many(&store, root, &[40, 64_000, 41, 40]).unwrap(),
        [40, 64_000, 41, 40].map(|key| Some(key * 9))
    );
    assert_eq!(store.reads.replace(0), 2 * depth - 1);

    let mut seen = 0;
    diff(&store, root, other, &mut |_, _, _| seen += 1).unwrap();
    assert_eq!(seen, 10);
    assert!(store.reads.replace(0) <= 2 * depth * changes.len());

    // A taller map differs in what it has more, and in the path to its old root.
    let mut new = NewNodes::new();
    let taller = apply(&store, root, &[(1 << 31, Some(1))], &mut new).unwrap();
    store.reads.set(0);
    let mut seen = Vec::new();
    diff(
        &Overlay {
            base: &store,
            new: &new,
        },
        root,
        taller,
        &mut |key, a, b| seen.push((key, a, b)),
    )
    .unwrap();
    assert_eq!(seen, [(1 << 31, None, Some(1))]);
    assert!(store.reads.get() <= depth, "{} reads", store.reads.get());
}

#[test]
fn nothing_changed_is_the_same_root() {
    let (root, nodes) = members(5_000);
    let same: Changes = vec![
        (7, Some(63)),
        (4_000, Some(36_000)),
        (5_000, None),
        (u32::MAX, None),
    ];
    let mut new = NewNodes::new();
    assert_eq!(apply(&nodes, root, &same, &mut new).unwrap(), root);
    assert_eq!(
        apply(&nodes, NodeId::EMPTY, &[(9, None)], &mut new).unwrap(),
        NodeId::EMPTY
    );
    assert!(new.is_empty());
}

#[test]
fn missing_and_misplaced_nodes_are_errors() {
    let (root, nodes) = members(2_000);
    let mut store = Raw(nodes.encoded().map(|(id, bytes)| (id, bytes.to_vec())).collect());
    let Node::Inner(Inner { children, .. }) = &*nodes.get(root).unwrap().unwrap() else {
        panic!("a map of 2,000 entries has an inner root");
    };
    // A root that leads to itself must not be followed for ever.
    store.0.insert(children[0], store.0[&root].clone());
    assert!(get(&store, root, 1).is_err());
    store.0.remove(&children[0]);
    assert!(get(&store, root, 1).is_err());
    assert!(get_many(&store, root, &[1]).is_err());
    assert!(iter(&store, root, &mut |_, _| {}).is_err());
    assert!(apply(&store, root, &[(1, None)], &mut NewNodes::new()).is_err());
    assert!(diff(&store, root, members(1_000).0, &mut |_, _, _| {}).is_err());
    assert_eq!(get(&store, root, 1_999).unwrap(), Some(1_999 * 9));
}
