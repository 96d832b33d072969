//! Unread counts of users who have the default rules, from the running totals of the timeline and of threads.

use std::collections::HashMap;

use hearth_storage::Family;
use ruma::UserId;

use crate::{
    Error, Place, Room,
    codec::{Cursor, put_varint},
    event::Short,
    head::Totals,
    keys,
    unread::{Counted, Counts, Marks, THREADS_MAX, UnreadUser},
    unread_rows as rows,
};

/// How many redactions and mentions behind the read position are looked at.
const ROWS_MAX: usize = 10_000;

/// The running totals of a thread after one of its counted events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadCount {
    pub(crate) place: Place,
    pub(crate) notify: u32,
    pub(crate) highlight: u32,
}

impl ThreadCount {
    pub(crate) fn value(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(6);
        put_varint(&mut out, u64::from(self.notify));
        put_varint(&mut out, u64::from(self.highlight));
        keys::tagged(&out)
    }

    fn read(place: Place, value: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(keys::untagged(value).unwrap_or_default(), "thread count");
        Ok(Self {
            place,
            notify: cursor.u32()?,
            highlight: cursor.u32()?,
        })
    }
}

/// Counts that may go below zero while they are put together.
#[derive(Clone, Copy, Default)]
struct Sum {
    notify: i64,
    highlight: i64,
}

impl Sum {
    fn add(&mut self, notify: i64, highlight: i64) {
        self.notify += notify;
        self.highlight += highlight;
    }

    fn counts(self) -> Counts {
        Counts {
            notifications: u64::try_from(self.notify).unwrap_or(0),
            highlights: u64::try_from(self.highlight).unwrap_or(0),
        }
    }
}

/// The sums of the main timeline and of threads.
#[derive(Default)]
struct Sums {
    main: Sum,
    threads: HashMap<Short, Sum>,
    /// All other threads, once no more are told apart.
    rest: Option<Sum>,
}

impl Sums {
    fn add(&mut self, thread: Option<Short>, notify: i64, highlight: i64) {
        let sum = match (thread, &mut self.rest) {
            (None, _) => &mut self.main,
            (Some(root), Some(rest)) => self.threads.get_mut(&root).unwrap_or(rest),
            (Some(root), None) => self.threads.entry(root).or_default(),
        };
        sum.add(notify, highlight);
    }

    fn counted(self) -> Counted {
        let threads = self.threads.into_iter();
        Counted {
            main: self.main.counts(),
            threads: threads.map(|(root, sum)| (root, sum.counts())).collect(),
            rest: self.rest.unwrap_or_default().counts(),
        }
    }
}

impl Room {
    /// The counts of a user who has the default rules.
    pub(crate) fn derived(
        &self,
        user: &UnreadUser<'_>,
        marks: &Marks,
        last: Place,
    ) -> Result<Counted, Error> {
        let mut sums = Sums::default();
        let (now, main) = (self.totals_at(last)?, self.totals_at(marks.main)?);
        let in_main = |of: Totals| {
            (
                i64::from(of.notify) - i64::from(of.thread_notify),
                i64::from(of.highlight) - i64::from(of.thread_highlight),
            )
        };
        let ((notify, highlight), (read, read_highlight)) = (in_main(now), in_main(main));
        sums.add(None, notify - read, highlight - read_highlight);
        let base = match marks.base == marks.main {
            true => main,
            false => self.totals_at(marks.base)?,
        };
        // Where nothing was counted in threads since, there is none to look for.
        let threads = match now.thread_notify == base.thread_notify {
            true => Vec::new(),
            false => self.counted_threads(marks.base)?,
        };
        for (newest, root) in &threads {
            // Most threads are read to their ends.
            if *newest <= marks.of(Some(*root)) {
                continue;
            }
            let (notify, highlight) = self.counted_between(*root, marks.of(Some(*root)), last)?;
            sums.add(Some(*root), notify, highlight);
        }
        if threads.len() == THREADS_MAX {
            self.count_rest(marks, (base, now), &mut sums)?;
        }
        self.visit_uncounted(marks.base, last, &mut |place, class, thread| {
            if place > marks.of(thread) {
                sums.add(thread, -i64::from(class.notify), -i64::from(class.highlight));
            }
        })?;
        for (place, short, thread) in self.named_after(user.id, marks.base, last)? {
            if place <= marks.of(thread) {
                continue;
            }
            let Some(event) = self.event(short)?.filter(|event| !event.is_redacted()) else {
                continue;
            };
            let (outcome, class) = (self.outcome(user, &event)?, event.header.class);
            let more = |is: bool, was: bool| i64::from(is) - i64::from(was);
            sums.add(
                thread,
                more(outcome.notify, class.notify),
                more(outcome.highlight, class.highlight),
            );
        }
        Ok(sums.counted())
    }

    /// What a thread counted after one place, up to another.
    fn counted_between(&self, root: Short, after: Place, until: Place) -> Result<(i64, i64), Error> {
        let (now, before) = (self.thread_count(root, until)?, self.thread_count(root, after)?);
        let part = |now: u32, before: u32| i64::from(now) - i64::from(before);
        Ok((
            part(now.notify, before.notify),
            part(now.highlight, before.highlight),
        ))
    }

    /// Counts the threads that are too many to be told apart: what all threads counted, less what was read of them and
    /// what was told.
    fn count_rest(&self, marks: &Marks, (base, now): (Totals, Totals), sums: &mut Sums) -> Result<(), Error> {
        let part = |now: u32, before: u32| i64::from(now) - i64::from(before);
        let mut rest = Sum::default();
        rest.add(
            part(now.thread_notify, base.thread_notify),
            part(now.thread_highlight, base.thread_highlight),
        );
        for (root, mark) in &marks.threads {
            let (notify, highlight) = self.counted_between(*root, marks.base, *mark)?;
            rest.add(-notify, -highlight);
        }
        for told in sums.threads.values() {
            rest.add(-told.notify, -told.highlight);
        }
        sums.rest = Some(rest);
        Ok(())
    }

    /// The totals of the timeline up to a place. Filled-in history counts for nothing.
    pub(crate) fn totals_at(&self, place: Place) -> Result<Totals, Error> {
        let anchor = match place.offset {
            0 => place.anchor,
            _ => place.anchor.saturating_sub(1),
        };
        if anchor == 0 {
            return Ok(Totals::default());
        }
        if let Some(totals) = self.0.tail.totals(anchor) {
            return Ok(totals);
        }
        let row = keys::timeline(self.0.key, Place { anchor, offset: 0 });
        let value = self.reader().get(Family::RoomTimeline, &row)?;
        keys::read_totals(&value.ok_or(Error::Damaged("timeline row"))?)
    }

    /// The totals of a thread up to a place.
    pub(crate) fn thread_count(&self, root: Short, until: Place) -> Result<ThreadCount, Error> {
        let (start, all, skip) = rows::thread_counts(self.0.key, root);
        let end = match until {
            Place::END => all,
            until => hearth_storage::prefix_end(&rows::thread_count(self.0.key, root, until)),
        };
        let mut found = Ok(ThreadCount::default());
        self.reader()
            .scan(Family::RoomIndex, &start, &end, true, &mut |row, value| {
                let place = keys::read_place(&row[skip..]).unwrap_or_default();
                found = ThreadCount::read(place, value);
                false
            })?;
        found
    }

    /// The threads with counted events after a place, with the places of their newest ones, newest first.
    fn counted_threads(&self, after: Place) -> Result<Vec<(Place, Short)>, Error> {
        let prefix = keys::index(self.0.key, keys::INDEX_THREAD_COUNTED, &[]);
        let start = hearth_storage::prefix_end(&[prefix.as_slice(), &keys::place_bytes(after)].concat());
        let end = hearth_storage::prefix_end(&prefix);
        let mut roots = Vec::new();
        self.reader()
            .scan(Family::RoomIndex, &start, &end, true, &mut |row, _| {
                let place = keys::read_place(&row[prefix.len()..]);
                let root = keys::read_u32(&row[prefix.len() + 12..], "thread root").ok();
                roots.extend(place.zip(root));
                roots.len() < THREADS_MAX
            })?;
        Ok(roots)
    }

    /// Visits the counted events between two places that were redacted since.
    pub(crate) fn visit_uncounted(
        &self,
        after: Place,
        until: Place,
        visit: &mut dyn FnMut(Place, hearth_events::notification::Class, Option<Short>),
    ) -> Result<(), Error> {
        let last = self.view().hints.uncounted;
        if after
            >= (Place {
                anchor: last,
                offset: 0,
            })
        {
            return Ok(());
        }
        let start = hearth_storage::prefix_end(&rows::uncounted(self.0.key, after));
        let end = hearth_storage::prefix_end(&rows::uncounted(self.0.key, until));
        let skip = start.len() - 12;
        let mut left = ROWS_MAX;
        self.reader()
            .scan(Family::RoomIndex, &start, &end, true, &mut |row, value| {
                let place = keys::read_place(&row[skip..]);
                if let (Some(place), Ok((class, thread))) = (place, rows::read_uncounted(value)) {
                    visit(place, class, thread);
                }
                left -= 1;
                left > 0
            })?;
        Ok(())
    }

    fn named_after(
        &self,
        user: &UserId,
        after: Place,
        until: Place,
    ) -> Result<Vec<(Place, Short, Option<Short>)>, Error> {
        let mut found = Vec::new();
        let last = self.view().hints.named;
        if after
            >= (Place {
                anchor: last,
                offset: 0,
            })
        {
            return Ok(found);
        }
        let start = hearth_storage::prefix_end(&rows::named(self.0.key, user, after));
        let end = hearth_storage::prefix_end(&rows::named(self.0.key, user, until));
        let skip = start.len() - 12;
        self.reader()
            .scan(Family::RoomIndex, &start, &end, true, &mut |row, value| {
                let place = keys::read_place(&row[skip..]);
                if let (Some(place), Ok((short, thread))) = (place, rows::read_named(value)) {
                    found.push((place, short, thread));
                }
                found.len() < ROWS_MAX
            })?;
        Ok(found)
    }
}
