//! The newest items of a shard's feed in memory: whoever follows a feed is seldom far behind, and what was
//! written a moment ago need not be looked for on disk, once for each follower.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::FeedItem;
use crate::Position;

/// So many items of a shard are kept: what comes while a follower that gathers for a moment does so.
const ITEMS_MAX: usize = 1024;

/// The end of a shard's feed.
#[derive(Debug)]
pub(crate) struct Tail(Mutex<Items>);

#[derive(Debug)]
struct Items {
    /// Everything after this position is here.
    after: Position,
    items: VecDeque<(Position, FeedItem)>,
}

impl Tail {
    /// The tail of a feed of which nothing after `head` is written yet.
    pub(super) fn new(head: Position) -> Tail {
        Tail(Mutex::new(Items {
            after: head,
            items: VecDeque::new(),
        }))
    }

    /// Adds the items of a position that is written and not published yet.
    pub(super) fn push(&self, position: Position, added: &[FeedItem]) {
        let mut tail = self.0.lock();
        tail.items.extend(added.iter().map(|item| (position, *item)));
        let surplus = tail.items.len().saturating_sub(ITEMS_MAX);
        if let Some((last, _)) = surplus.checked_sub(1).and_then(|at| tail.items.get(at)) {
            let last = *last;
            tail.forget(last);
        }
    }

    /// Begins anew, with nothing written after `head`.
    pub(super) fn restart(&self, head: Position) {
        *self.0.lock() = Items {
            after: head,
            items: VecDeque::new(),
        };
    }

    /// Forgets everything up to a position.
    pub(crate) fn forget(&self, position: Position) {
        self.0.lock().forget(position);
    }

    /// The items of at most `limit` positions after `after` up to `until`; none where some of them are only on disk.
    pub(crate) fn read(
        &self,
        after: Position,
        until: Position,
        limit: usize,
    ) -> Option<Vec<(Position, Vec<FeedItem>)>> {
        let tail = self.0.lock();
        if after < tail.after {
            return None;
        }
        let start = tail.items.partition_point(|(position, _)| *position <= after);
        let mut found: Vec<(Position, Vec<FeedItem>)> = Vec::new();
        for (position, item) in tail.items.range(start..) {
            if let Some((last, items)) = found.last_mut()
                && last == position
            {
                items.push(*item);
                continue;
            }
            if *position > until || found.len() == limit {
                break;
            }
            found.push((*position, vec![*item]));
        }
        Some(found)
    }
}

impl Items {
    fn forget(&mut self, position: Position) {
        self.after = self.after.max(position);
        let end = self.items.partition_point(|(at, _)| *at <= position);
        self.items.drain(..end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EntityKey, FeedKind, Slot};

    fn items(references: &[u64]) -> Vec<FeedItem> {
        let entity = EntityKey {
            slot: Slot::new(1).unwrap(),
            no: 1,
        };
        let item = |reference: &u64| FeedItem {
            entity,
            kind: FeedKind::RoomEvent,
            reference: *reference,
        };
        references.iter().map(item).collect()
    }

    #[test]
    fn it_gives_what_it_has_whole_or_nothing() {
        let tail = Tail::new(5);
        tail.push(7, &items(&[1, 2]));
        tail.push(8, &[]);
        tail.push(9, &items(&[3]));
        let all = vec![(7, items(&[1, 2])), (9, items(&[3]))];
        assert_eq!(tail.read(4, 9, 10), None, "6 may be on disk");
        assert_eq!(tail.read(5, 9, 10), Some(all.clone()));
        assert_eq!(tail.read(5, 8, 10), Some(all[..1].to_vec()));
        assert_eq!(tail.read(5, 9, 1), Some(all[..1].to_vec()));
        assert_eq!(tail.read(7, 9, 10), Some(all[1..].to_vec()));
        assert_eq!(tail.read(9, 9, 10), Some(vec![]));
        tail.forget(7);
        assert_eq!(tail.read(5, 9, 10), None);
        assert_eq!(tail.read(7, 9, 10), Some(all[1..].to_vec()));
    }

    #[test]
    fn it_is_bounded_by_whole_positions() {
        let tail = Tail::new(0);
        for position in 1..=ITEMS_MAX as u64 {
            tail.push(position, &items(&[position, position]));
        }
        let kept = ITEMS_MAX as u64 / 2;
        assert_eq!(tail.read(kept - 1, u64::MAX, usize::MAX), None);
        let found = tail.read(kept, u64::MAX, usize::MAX).unwrap();
        assert_eq!(found.len() as u64, kept);
        assert!(found.iter().all(|(position, of)| of == &items(&[*position; 2])));
    }
}
