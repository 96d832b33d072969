//! The newest rows of a room's timeline, in memory: a message is delivered from here, without a look into storage.

use std::collections::VecDeque;

use hearth_storage::Position;
use parking_lot::RwLock;

use crate::{Place, event::Short, head::Totals, timeline::Row};

/// How many rows a room keeps: clients that wait are seldom further behind.
const ROWS_MAX: usize = 32;

/// A row of the timeline with what is counted up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailRow {
    pub(crate) anchor: u64,
    pub(crate) short: Short,
    pub(crate) position: Position,
    pub(crate) totals: Totals,
}

impl TailRow {
    fn place(&self) -> Place {
        Place {
            anchor: self.anchor,
            offset: 0,
        }
    }

    fn row(&self) -> Row {
        Row {
            place: self.place(),
            short: self.short,
            position: self.position,
        }
    }
}

/// Rows without a gap between them, up to the newest that is durable. Empty where none came since the room is in memory.
#[derive(Debug, Default)]
pub(crate) struct Tail(RwLock<VecDeque<TailRow>>);

impl Tail {
    /// Rows became durable; they are in their order.
    pub(crate) fn push(&self, rows: &[TailRow]) {
        if rows.is_empty() {
            return;
        }
        let mut tail = self.0.write();
        for row in rows {
            if tail.back().is_some_and(|last| last.anchor + 1 != row.anchor) {
                tail.clear();
            }
            if tail.len() >= ROWS_MAX {
                tail.pop_front();
            }
            tail.push_back(*row);
        }
    }

    /// History was filled in before an event: what is kept begins with that event, so that nothing lies within it.
    pub(crate) fn filled_before(&self, anchor: u64) {
        let mut tail = self.0.write();
        let passed = tail.partition_point(|row| row.anchor < anchor);
        tail.drain(..passed);
    }

    /// The gap after the last row that was there at a position of the log, if that row is kept.
    pub(crate) fn place_at(&self, position: Position) -> Option<Place> {
        let tail = self.0.read();
        let shown = tail.partition_point(|row| row.position <= position);
        Some(tail.get(shown.checked_sub(1)?)?.place())
    }

    /// What is counted up to an event of the timeline, if its row is kept.
    pub(crate) fn totals(&self, anchor: u64) -> Option<Totals> {
        let tail = self.0.read();
        let at = anchor.checked_sub(tail.front()?.anchor)?;
        Some(tail.get(usize::try_from(at).ok()?)?.totals)
    }

    /// The kept rows after gap `after` up to gap `until`, oldest first, and where the kept rows begin: before that gap
    /// storage must be asked. `None` if no row is kept.
    pub(crate) fn rows(&self, after: Place, until: Place) -> Option<(Vec<Row>, Place)> {
        let tail = self.0.read();
        let begin = tail.front()?.place();
        let first = tail.partition_point(|row| row.place() <= after);
        let end = tail.partition_point(|row| row.place() <= until).max(first);
        Some((tail.range(first..end).map(TailRow::row).collect(), begin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(anchor: u64, position: Position) -> TailRow {
        TailRow {
            anchor,
            short: anchor as Short,
            position,
            totals: Totals {
                notify: anchor as u32,
                ..Totals::default()
            },
        }
    }

    fn at(anchor: u64, offset: i32) -> Place {
        Place { anchor, offset }
    }

    fn anchors(tail: &Tail, after: Place, until: Place) -> Vec<u64> {
        let (rows, _) = tail.rows(after, until).expect("rows");
        rows.iter().map(|row| row.place.anchor).collect()
    }

    #[test]
    fn it_knows_nothing_before_something_came() {
        let tail = Tail::default();
        assert_eq!(tail.place_at(7), None);
        assert_eq!(tail.totals(7), None);
        assert_eq!(tail.rows(Place::START, Place::END), None);
        tail.filled_before(7);
    }

    #[test]
    fn rows_are_found_by_position_and_place() {
        let tail = Tail::default();
        tail.push(&[row(5, 50), row(6, 50)]);
        tail.push(&[row(7, 60)]);
        assert_eq!(tail.place_at(49), None, "storage knows");
        assert_eq!(tail.place_at(50), Some(at(6, 0)));
        assert_eq!(tail.place_at(59), Some(at(6, 0)));
        assert_eq!(tail.place_at(60), Some(at(7, 0)));
        assert_eq!(tail.totals(4), None);
        assert_eq!(tail.totals(6).map(|totals| totals.notify), Some(6));
        assert_eq!(tail.totals(8), None);
        assert_eq!(anchors(&tail, at(5, 0), Place::END), [6, 7]);
        assert_eq!(anchors(&tail, Place::START, at(6, 0)), [5, 6]);
        assert_eq!(anchors(&tail, at(5, -1), at(5, 0)), [5]);
        assert_eq!(anchors(&tail, at(7, 0), at(6, 0)), [0; 0]);
        assert_eq!(tail.rows(Place::START, Place::END).expect("rows").1, at(5, 0));
    }

    #[test]
    fn there_is_never_a_gap() {
        let tail = Tail::default();
        tail.push(&[row(5, 50), row(6, 51), row(9, 52)]);
        assert_eq!(anchors(&tail, Place::START, Place::END), [9]);
        let rows: Vec<TailRow> = (10..100).map(|anchor| row(anchor, anchor * 10)).collect();
        tail.push(&rows);
        let (kept, begin) = tail.rows(Place::START, Place::END).expect("rows");
        assert_eq!(kept.len(), ROWS_MAX);
        assert_eq!(begin, kept[0].place);
        tail.filled_before(98);
        assert_eq!(anchors(&tail, Place::START, Place::END), [98, 99]);
    }
}
