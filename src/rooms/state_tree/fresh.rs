//! The part of a map that a change has touched, before it is encoded.
//!
//! A change first edits this tree and encodes it only at the end, so that a node which the change
//! makes needless (a root that is too tall after a removal) is never written.

use hearth_storage::Error;

use super::node::{Inner, Leaf, Node, NodeId, WIDTH, slot_of, slots};
use super::store::{NewNodes, NodeStore, load};

/// A subtree: one that is encoded already, or one in the making.
pub(super) enum Link {
    Stored(NodeId),
    Fresh(Fresh),
}

/// A node in the making.
pub(super) enum Fresh {
    Leaf(Box<[Option<u32>; WIDTH]>),
    Inner {
        level: u8,
        count: u64,
        links: Box<[Option<Link>; WIDTH]>,
    },
}

/// The change of one key: its new value, or none to remove it.
pub(super) type Change = (u32, Option<u32>);

impl Fresh {
    /// An editable copy of a node.
    fn of(node: &Node) -> Fresh {
        match node {
            Node::Leaf(leaf) => {
                let mut values = [None; WIDTH];
                for (slot, value) in slots(leaf.bitmap).zip(&leaf.values) {
                    values[slot] = Some(*value);
                }
                Fresh::Leaf(Box::new(values))
            }
            Node::Inner(inner) => {
                let mut links = no_links();
                for (slot, child) in slots(inner.bitmap).zip(&inner.children) {
                    links[slot] = Some(Link::Stored(*child));
                }
                Fresh::Inner {
                    level: inner.level,
                    count: inner.count,
                    links,
                }
            }
        }
    }

    /// A node of `level` without entries.
    fn empty(level: u8) -> Fresh {
        match level {
            0 => Fresh::Leaf(Box::new([None; WIDTH])),
            level => Fresh::Inner {
                level,
                count: 0,
                links: no_links(),
            },
        }
    }

    /// A node whose only subtree is `link` in slot 0: how a map grows taller.
    pub(super) fn above(link: Link, level: u8, count: u64) -> Fresh {
        let mut links = no_links();
        links[0] = Some(link);
        Fresh::Inner { level, count, links }
    }

    /// The subtree in slot 0 if it is the only one: such a root is taller than it must be.
    pub(super) fn take_only_first(&mut self) -> Option<Link> {
        match self {
            Fresh::Inner { links, .. } if links[1..].iter().all(Option::is_none) => links[0].take(),
            _ => None,
        }
    }
}

fn no_links() -> Box<[Option<Link>; WIDTH]> {
    Box::new([const { None }; WIDTH])
}

/// What became of a subtree.
pub(super) struct Changed {
    /// None when no entry is left; the link given if nothing changed.
    pub(super) link: Option<Link>,
    /// Entries gained (or lost).
    pub(super) gained: i64,
}

/// Changes the subtree `link` at `level`. `changes` are ordered by key, at most one a key, and all lie
/// in the subtree.
pub(super) fn change(
    store: &dyn NodeStore,
    link: Option<Link>,
    level: u8,
    changes: &[Change],
) -> Result<Changed, Error> {
    let (was, fresh) = match link {
        None if changes.iter().all(|(_, value)| value.is_none()) => {
            return Ok(Changed {
                link: None,
                gained: 0,
            });
        }
        None => (None, Fresh::empty(level)),
        Some(Link::Stored(id)) => (Some(id), Fresh::of(&*load(store, id, level)?)),
        Some(Link::Fresh(fresh)) => (None, fresh),
    };
    let edited = match fresh {
        Fresh::Leaf(values) => change_leaf(values, changes),
        Fresh::Inner { level, count, links } => change_inner(store, level, count, links, changes)?,
    };
    let link = match (was, edited.touched) {
        (Some(id), false) => Some(Link::Stored(id)),
        _ => edited.fresh.map(Link::Fresh),
    };
    Ok(Changed {
        link,
        gained: edited.gained,
    })
}

struct Edited {
    /// None when no entry is left.
    fresh: Option<Fresh>,
    touched: bool,
    gained: i64,
}

fn change_leaf(mut values: Box<[Option<u32>; WIDTH]>, changes: &[Change]) -> Edited {
    let (mut touched, mut gained) = (false, 0);
    for (key, value) in changes {
        let old = std::mem::replace(&mut values[slot_of(*key, 0)], *value);
        touched |= old != *value;
        gained += i64::from(value.is_some()) - i64::from(old.is_some());
    }
    let fresh = values.iter().any(Option::is_some).then_some(Fresh::Leaf(values));
    Edited {
        fresh,
        touched,
        gained,
    }
}

fn change_inner(
    store: &dyn NodeStore,
    level: u8,
    count: u64,
    mut links: Box<[Option<Link>; WIDTH]>,
    changes: &[Change],
) -> Result<Edited, Error> {
    let (mut touched, mut gained) = (false, 0);
    for below in changes.chunk_by(|a, b| slot_of(a.0, level) == slot_of(b.0, level)) {
        let place = &mut links[slot_of(below[0].0, level)];
        let old = place.take();
        let old_id = stored(&old);
        let had_none = old.is_none();
        let changed = change(store, old, level - 1, below)?;
        *place = changed.link;
        let same = if had_none {
            place.is_none()
        } else {
            old_id.is_some() && stored(place) == old_id
        };
        touched |= !same;
        gained += changed.gained;
    }
    let fresh = if links.iter().any(Option::is_some) {
        let count = count
            .checked_add_signed(gained)
            .ok_or(Error::Corrupt("state map node (false count)"))?;
        Some(Fresh::Inner { level, count, links })
    } else {
        None
    };
    Ok(Edited {
        fresh,
        touched,
        gained,
    })
}

fn stored(link: &Option<Link>) -> Option<NodeId> {
    match link {
        Some(Link::Stored(id)) => Some(*id),
        _ => None,
    }
}

/// Encodes what is in the making into `new`, children first, and gives the subtree's id.
pub(super) fn seal(link: Link, new: &mut NewNodes) -> NodeId {
    let fresh = match link {
        Link::Stored(id) => return id,
        Link::Fresh(fresh) => fresh,
    };
    let mut bitmap = 0;
    let node = match fresh {
        Fresh::Leaf(values) => {
            let values = pack(*values, &mut bitmap, |value| value);
            Node::Leaf(Leaf { bitmap, values })
        }
        Fresh::Inner { level, count, links } => {
            let children = pack(*links, &mut bitmap, |link| seal(link, new));
            Node::Inner(Inner {
                level,
                bitmap,
                count,
                children,
            })
        }
    };
    assert!(bitmap != 0, "a node without entries is never kept");
    new.add(node)
}

fn pack<T, U>(items: [Option<T>; WIDTH], bitmap: &mut u32, mut item: impl FnMut(T) -> U) -> Box<[U]> {
    let mut packed = Vec::with_capacity(WIDTH);
    for (slot, value) in items.into_iter().enumerate() {
        if let Some(value) = value {
            *bitmap |= 1 << slot;
            packed.push(item(value));
        }
    }
    packed.into()
}
