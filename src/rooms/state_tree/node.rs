//! One node of a state map: its two forms, its encoding and its id.
//!
//! Encoding, version 1 (all integers big-endian, varints LEB128 in their shortest form):
//!
//! ```text
//! leaf:  1 version, 1 level = 0,    4 bitmap, one varint event short per set bit
//! inner: 1 version, 1 level = 1..6, 4 bitmap, varint entries below, 16 child id per set bit
//! ```
//!
//! Bit `i` of the bitmap (from the least significant) stands for slot `i`. Every node has exactly one
//! encoding, and [`Node::decode`] accepts nothing else, because the id is a hash of the bytes.

use std::fmt;

use hearth_storage::Error;

/// The first byte of every encoded node. A new layout takes a new number; ids of the two never mix
/// because the byte is hashed too.
const VERSION: u8 = 1;

/// Each level takes this many bits of the key.
pub(super) const BITS: u32 = 5;

/// Slots in a node.
pub(super) const WIDTH: usize = 1 << BITS;

/// The root's level when the greatest key has all 32 bits: six levels of five bits above the leaf
/// leave two bits for the topmost.
pub(super) const MAX_LEVEL: u8 = 6;

/// The topmost level has only the key's last two bits to tell slots apart.
const TOP_LEVEL_SLOTS: u32 = 0b1111;

/// Names a node, and, as a root, a whole state: the first 16 bytes of BLAKE3 of the encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// The root of the map without entries, which has no node.
    pub const EMPTY: NodeId = NodeId([0; 16]);

    /// The id of a node with this encoding.
    pub fn of(encoded: &[u8]) -> NodeId {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(encoded).as_bytes()[..16]);
        NodeId(id)
    }

    /// Whether this is the root of the map without entries.
    pub fn is_empty(&self) -> bool {
        *self == NodeId::EMPTY
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeId(")?;
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// A decoded node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Up to 32 entries.
    Leaf(Leaf),
    /// Up to 32 subtrees.
    Inner(Inner),
}

/// The entries whose keys share all but their last five bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub(super) bitmap: u32,
    pub(super) values: Box<[u32]>,
}

/// The subtrees whose keys share all but their last `5 · (level + 1)` bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    pub(super) level: u8,
    pub(super) bitmap: u32,
    /// Entries in all subtrees together; part of the encoding so that [`super::len`] reads one node.
    pub(super) count: u64,
    pub(super) children: Box<[NodeId]>,
}

/// The least level of a root that reaches `key`.
pub(super) fn level_for(key: u32) -> u8 {
    let bits = u32::BITS - key.leading_zeros();
    (bits.saturating_sub(1) / BITS) as u8
}

/// The slot that `key` takes in a node of `level`.
pub(super) fn slot_of(key: u32, level: u8) -> usize {
    (key >> (BITS * u32::from(level))) as usize & (WIDTH - 1)
}

/// Where the item of `slot` lies among the packed items, if the slot is taken.
fn rank(bitmap: u32, slot: usize) -> Option<usize> {
    let bit = 1u32 << slot;
    (bitmap & bit != 0).then(|| (bitmap & (bit - 1)).count_ones() as usize)
}

/// The set bits of `bitmap`, ascending.
pub(super) fn slots(mut bitmap: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let slot = bitmap.trailing_zeros();
        bitmap &= bitmap.wrapping_sub(1);
        (slot < u32::BITS).then_some(slot as usize)
    })
}

impl Leaf {
    /// The value in `slot`.
    pub(super) fn value(&self, slot: usize) -> Option<u32> {
        rank(self.bitmap, slot).map(|at| self.values[at])
    }
}

impl Inner {
    /// The subtree in `slot`.
    pub(super) fn child(&self, slot: usize) -> Option<NodeId> {
        rank(self.bitmap, slot).map(|at| self.children[at])
    }
}

impl Node {
    /// 0 for a leaf, the distance to the leaves otherwise.
    pub fn level(&self) -> u8 {
        match self {
            Node::Leaf(_) => 0,
            Node::Inner(inner) => inner.level,
        }
    }

    /// The number of entries in the whole subtree.
    pub fn count(&self) -> u64 {
        match self {
            Node::Leaf(leaf) => leaf.values.len() as u64,
            Node::Inner(inner) => inner.count,
        }
    }

    /// The ids of the nodes right below, for walks over stored nodes (sweep, export).
    pub fn children(&self) -> &[NodeId] {
        match self {
            Node::Leaf(_) => &[],
            Node::Inner(inner) => &inner.children,
        }
    }

    /// About what the node takes in memory, for the weight of the cache.
    pub fn memory_bytes(&self) -> usize {
        let packed = match self {
            Node::Leaf(leaf) => size_of_val(&*leaf.values),
            Node::Inner(inner) => size_of_val(&*inner.children),
        };
        size_of::<Node>() + packed
    }

    /// The one encoding of this node.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Node::Leaf(leaf) => {
                let mut out = header(0, leaf.bitmap, leaf.values.len() * 4);
                for value in &leaf.values {
                    put_varint(&mut out, u64::from(*value));
                }
                out
            }
            Node::Inner(inner) => {
                let mut out = header(inner.level, inner.bitmap, inner.children.len() * 16 + 5);
                put_varint(&mut out, inner.count);
                for child in &inner.children {
                    out.extend_from_slice(&child.0);
                }
                out
            }
        }
    }

    /// Reads a node, and refuses bytes that [`Node::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Node, Error> {
        parse(bytes).map_err(Error::Corrupt)
    }

    /// Reads the node that is stored under `id`, and refuses bytes that are not that node's.
    pub fn decode_checked(id: NodeId, bytes: &[u8]) -> Result<Node, Error> {
        if NodeId::of(bytes) != id {
            return Err(Error::Corrupt("state map node (another node's bytes)"));
        }
        Node::decode(bytes)
    }
}

fn header(level: u8, bitmap: u32, body: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(6 + body);
    out.extend_from_slice(&[VERSION, level]);
    out.extend_from_slice(&bitmap.to_be_bytes());
    out
}

fn parse(bytes: &[u8]) -> Result<Node, &'static str> {
    let Some((&[version, level, a, b, c, d], mut body)) = bytes.split_first_chunk::<6>() else {
        return Err("state map node (shorter than its header)");
    };
    if version != VERSION {
        return Err("state map node (of an unknown version)");
    }
    let bitmap = u32::from_be_bytes([a, b, c, d]);
    if bitmap == 0 {
        return Err("state map node (without entries)");
    }
    if level > MAX_LEVEL || (level == MAX_LEVEL && bitmap & !TOP_LEVEL_SLOTS != 0) {
        return Err("state map node (past the last key)");
    }
    let taken = bitmap.count_ones() as usize;
    let node = if level == 0 {
        let mut values = Vec::with_capacity(taken);
        for _ in 0..taken {
            let value = take_varint(&mut body).ok_or("state map node (malformed value)")?;
            values.push(u32::try_from(value).map_err(|_| "state map node (value too large)")?);
        }
        Node::Leaf(Leaf {
            bitmap,
            values: values.into(),
        })
    } else {
        let count = take_varint(&mut body).ok_or("state map node (malformed count)")?;
        let most = (taken as u64) << (BITS * u32::from(level));
        if count < taken as u64 || count > most {
            return Err("state map node (impossible count)");
        }
        let (ids, rest) = body.as_chunks::<16>();
        if ids.len() != taken || !rest.is_empty() {
            return Err("state map node (length not of its bitmap)");
        }
        body = &[];
        let children = ids.iter().map(|id| NodeId(*id)).collect();
        Node::Inner(Inner {
            level,
            bitmap,
            count,
            children,
        })
    };
    if body.is_empty() {
        Ok(node)
    } else {
        Err("state map node (bytes after its end)")
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a varint of at most 35 bits, more than any number here needs, in its shortest form.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for index in 0..5 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            let shortest = byte != 0 || index == 0;
            return shortest.then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(bitmap: u32, values: &[u32]) -> Node {
        Node::Leaf(Leaf {
            bitmap,
            values: values.into(),
        })
    }

    fn inner(level: u8, bitmap: u32, count: u64) -> Node {
        let children = (0..bitmap.count_ones() as u8).map(|n| NodeId([n; 16])).collect();
        Node::Inner(Inner {
            level,
            bitmap,
            count,
            children,
        })
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn round_trips() {
        for node in [
            leaf(1, &[0]),
            leaf(u32::MAX, &[u32::MAX; 32]),
            leaf(0x8000_0001, &[127, 128]),
            inner(1, 0b101, 40),
            inner(5, u32::MAX, 1 << 30),
            inner(6, 0b1111, 1 << 32),
        ] {
            let bytes = node.encode();
            assert_eq!(Node::decode_checked(NodeId::of(&bytes), &bytes).unwrap(), node);
        }
    }

    /// The bytes and ids are stored for ever: a change here is a new version of the format.
    #[test]
    fn stored_format_is_fixed() {
        let node = leaf(0b1001, &[5, 300]);
        assert_eq!(hex(&node.encode()), "01000000000905ac02");
        assert_eq!(
            format!("{:?}", NodeId::of(&node.encode())),
            "NodeId(aebc27ea5c4fa82ab2cdea9ec836a992)"
        );
        let node = inner(2, 0b10, 200);
        assert_eq!(
            hex(&node.encode()),
            "010200000002c80100000000000000000000000000000000"
        );
        assert_eq!(
            format!("{:?}", NodeId::of(&node.encode())),
            "NodeId(4844679386a04653131f92b9e2c88beb)"
        );
    }

    #[test]
    fn refuses_other_bytes() {
        let cases: &[&[u8]] = &[
            &[],
            &[1, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 1, 7],                        // version
            &[1, 0, 0, 0, 0, 0],                           // no entries
            &[1, 0, 0, 0, 0, 1],                           // no value
            &[1, 0, 0, 0, 0, 1, 0x80],                     // cut value
            &[1, 0, 0, 0, 0, 1, 0x80, 0x00],               // value not in its shortest form
            &[1, 0, 0, 0, 0, 1, 255, 255, 255, 255, 0x1f], // value over 32 bits
            &[1, 0, 0, 0, 0, 1, 7, 7],                     // bytes after the end
            &[1, 1, 0, 0, 0, 1, 1],                        // no child
            &[
                1, 1, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            ], // count 0
            &[
                1, 1, 0, 0, 0, 1, 33, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            ], // count 33
            &[
                1, 6, 0, 0, 0, 16, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            ], // slot
            &[
                1, 7, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            ], // level
        ];
        for case in cases {
            assert!(Node::decode(case).is_err(), "{case:?}");
        }
        let bytes = leaf(1, &[1]).encode();
        assert!(Node::decode_checked(NodeId([1; 16]), &bytes).is_err());
    }

    #[test]
    fn levels() {
        for (key, level) in [
            (0, 0),
            (31, 0),
            (32, 1),
            (1023, 1),
            (1024, 2),
            (1 << 15, 3),
            ((1 << 30) - 1, 5),
            (1 << 30, 6),
            (u32::MAX, 6),
        ] {
            assert_eq!(level_for(key), level, "{key}");
        }
    }
}
