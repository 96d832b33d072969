//! Unread counts (client-server API, "Receiving notifications"), derived from positions.
//!
//! A timeline row holds the running totals of what notifies everybody who has the default rules. Unread is the
//! difference between the newest totals and those at the place up to which the user has read, in the main timeline and
//! in each thread; less what was redacted since; and corrected for the events that name the user. For a user whose own
//! rules may come to something else in the room, the events are counted one by one (`unread_own.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hearth_events::push::{Outcome, PushEvent, Rules};
use hearth_storage::{Family, Position, record};
use hearth_users::User;
use ruma::{OwnedEventId, OwnedUserId, UserId};
use serde::Deserialize;

use crate::{
    Error, Event, EventRoom, Place, Room,
    codec::{Cursor, put_varint},
    event::Short,
    head::Totals,
    keys, unread_rows as rows,
};

/// How many redactions and mentions behind the read position are looked at: more unread events than this are not
/// counted one by one for anybody.
pub(crate) const UNREAD_EVENTS_MAX: usize = 10_000;

/// How many threads are counted apart: an answer stays within what a client can show.
const THREADS_MAX: usize = 1_000;

/// How many users of the ignore list are looked up in a room; with a longer list the events are counted one by one.
const IGNORED_LOOKED_UP_MAX: usize = 20;

/// How much is unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that notify.
    pub notifications: u64,
    /// Events that also highlight.
    pub highlights: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.notifications += u64::from(outcome.notify);
        self.highlights += u64::from(outcome.highlight);
    }

    /// Whether nothing is unread.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

/// What is unread in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// In the whole room.
    pub total: Counts,
    /// In the main timeline.
    pub main: Counts,
    /// In threads, by their roots, where there is something.
    pub threads: BTreeMap<OwnedEventId, Counts>,
}

/// For whom is counted.
pub struct UnreadUser<'a> {
    /// The user.
    pub id: &'a UserId,
    /// The sequence number at which the user's stay in the room began.
    pub joined: u64,
    /// The user's push rules.
    pub rules: Arc<Rules>,
    /// Whom the user ignores.
    pub ignored: Arc<BTreeSet<OwnedUserId>>,
    /// The threads of the room to which the user is subscribed; read only where the rules ask for them.
    pub threads: BTreeSet<OwnedEventId>,
}

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

/// Up to where a user has read.
pub(crate) struct Marks {
    /// Everywhere.
    pub(crate) base: Place,
    /// In the main timeline.
    pub(crate) main: Place,
    /// In threads where that is further than everywhere.
    pub(crate) threads: HashMap<Short, Place>,
}

impl Marks {
    pub(crate) fn of(&self, thread: Option<Short>) -> Place {
        match thread {
            None => self.main,
            Some(root) => self.threads.get(&root).copied().unwrap_or(self.base),
        }
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
}

impl Sums {
    fn add(&mut self, thread: Option<Short>, notify: i64, highlight: i64) {
        match thread {
            None => self.main.add(notify, highlight),
            Some(root) => self.threads.entry(root).or_default().add(notify, highlight),
        }
    }
}

impl Room {
    /// What is unread for a user; none where the user is not joined.
    pub fn unread_of(&self, user: &User) -> Result<Option<Unread>, Error> {
        let user = self.unread_user(user)?;
        user.map(|user| self.unread(&user)).transpose()
    }

    /// What is unread for a user who is known to be joined: since an event, where that was noted, and a position. The rules
    /// and whom the user ignores are read once for many rooms.
    pub fn unread_since(
        &self,
        user: &User,
        (anchor, position): (u64, Position),
        rules: &Arc<Rules>,
        ignored: &Arc<BTreeSet<OwnedUserId>>,
    ) -> Result<Unread, Error> {
        self.unread(&UnreadUser {
            id: user.id(),
            joined: self.joined_at(anchor, position)?,
            threads: self.subscribed_threads(user, rules)?,
            rules: rules.clone(),
            ignored: ignored.clone(),
        })
    }

    fn joined_at(&self, anchor: u64, position: Position) -> Result<u64, Error> {
        match anchor {
            0 => Ok(self.place_at(position)?.anchor),
            noted => Ok(noted),
        }
    }

    /// A user as unread counts see it; none where the user is not joined.
    pub fn unread_user<'a>(&self, user: &'a User) -> Result<Option<UnreadUser<'a>>, Error> {
        let entry = user.room(self.id()).map_err(of_user)?;
        let Some(entry) = entry.filter(|entry| entry.membership == hearth_users::Membership::Join) else {
            return Ok(None);
        };
        let joined = self.joined_at(entry.began_anchor, entry.room_began)?;
        let rules = user.rules().map_err(of_user)?;
        Ok(Some(UnreadUser {
            id: user.id(),
            joined,
            threads: self.subscribed_threads(user, &rules)?,
            rules,
            ignored: user.ignored_users().map_err(of_user)?,
        }))
    }

    /// The threads of this room to which a user is subscribed, where the rules ask for them; else none.
    pub fn subscribed_threads(&self, user: &User, rules: &Rules) -> Result<BTreeSet<OwnedEventId>, Error> {
        match rules.asks_threads() {
            true => user.subscribed_threads(self.id()).map_err(of_user),
            false => Ok(BTreeSet::new()),
        }
    }

    /// Whether a user has read an event.
    pub fn has_read(&self, user: &UnreadUser<'_>, event: &Event) -> Result<bool, Error> {
        Ok(event.header.place <= self.marks(user)?.of(event.header.thread))
    }

    /// Whose receipt was set at a log position, if it still stands.
    pub fn receipt_user(&self, position: Position) -> Result<Option<OwnedUserId>, Error> {
        let row = keys::receipt_position(self.0.key, position);
        let value = self.reader().get(Family::RoomReceipt, &row)?;
        let tail = value.as_deref().and_then(keys::untagged);
        let user = tail.and_then(|tail| tail.split(|byte| *byte == 0).next());
        let user = user.and_then(|user| std::str::from_utf8(user).ok());
        Ok(user.and_then(|user| OwnedUserId::try_from(user).ok()))
    }

    /// What is unread for a joined member of this server.
    pub fn unread(&self, user: &UnreadUser<'_>) -> Result<Unread, Error> {
        let last = Place {
            anchor: self.view().last_n,
            offset: 0,
        };
        let marks = self.marks(user)?;
        if marks.base >= last {
            return Ok(Unread::default());
        }
        let counts = match user.rules.is_default_in(self.id().as_str()) && !self.has_any(&user.ignored)? {
            true => self.derived(user, &marks, last)?,
            false => self.counted(user, &marks, last)?,
        };
        self.put_together(counts)
    }

    fn put_together(&self, counts: HashMap<Option<Short>, Counts>) -> Result<Unread, Error> {
        let mut unread = Unread::default();
        for (thread, counts) in counts {
            unread.total.notifications += counts.notifications;
            unread.total.highlights += counts.highlights;
            match thread {
                None => unread.main = counts,
                Some(_) if counts.is_zero() => {}
                Some(root) => {
                    if let Some(root) = self.event(root)? {
                        unread.threads.insert(root.id().to_owned(), counts);
                    }
                }
            }
        }
        Ok(unread)
    }

    /// The counts of a user who has the default rules.
    fn derived(
        &self,
        user: &UnreadUser<'_>,
        marks: &Marks,
        last: Place,
    ) -> Result<HashMap<Option<Short>, Counts>, Error> {
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
        for (newest, root) in threads {
            // Most threads are read to their ends.
            if newest <= marks.of(Some(root)) {
                continue;
            }
            let (now, read) = (
                self.thread_count(root, last)?,
                self.thread_count(root, marks.of(Some(root)))?,
            );
            let part = |now: u32, read: u32| i64::from(now) - i64::from(read);
            sums.add(
                Some(root),
                part(now.notify, read.notify),
                part(now.highlight, read.highlight),
            );
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
        let threads = sums
            .threads
            .into_iter()
            .map(|(root, sum)| (Some(root), sum.counts()));
        Ok(threads.chain([(None, sums.main.counts())]).collect())
    }

    /// What an event means to a user, by the user's rules.
    pub(crate) fn outcome(&self, user: &UnreadUser<'_>, event: &Event) -> Result<Outcome, Error> {
        let Some(parsed) = PushEvent::new(&event.pdu.json) else {
            return Ok(Outcome::default());
        };
        let around = EventRoom::new(self, user.id, event, &user.threads);
        Ok(user.rules.outcome(user.id, &parsed, &around))
    }

    /// Up to where a user has read: receipts of both kinds, the beginning of the stay, own events.
    pub(crate) fn marks(&self, user: &UnreadUser<'_>) -> Result<Marks, Error> {
        let joined = Place {
            anchor: user.joined,
            offset: 0,
        };
        let mut marks = Marks {
            base: joined,
            main: joined,
            threads: HashMap::new(),
        };
        let mut by_thread: Vec<(Option<Short>, Place)> = Vec::new();
        let receipts = self.read_places(user.id)?;
        let everywhere = receipts.iter().filter(|(thread, _)| thread.is_none());
        marks.base = everywhere
            .map(|(_, place)| *place)
            .max()
            .map_or(joined, |place| place.max(joined));
        for (thread, place) in receipts {
            match thread.as_deref() {
                None => {}
                Some("main") => by_thread.push((None, place)),
                Some(root) => {
                    if place > marks.base
                        && let Ok(root) = <&ruma::EventId>::try_from(root)
                        && let Some(root) = self.short_of(root)?
                    {
                        by_thread.push((Some(root), place));
                    }
                }
            }
        }
        let (start, end) = keys::range(rows::owns(self.0.key, user.id));
        self.reader()
            .scan(Family::RoomIndex, &start, &end, false, &mut |row, value| {
                let place = keys::untagged(value).and_then(keys::read_place);
                if let (Ok(thread), Some(place)) = (rows::root(&row[start.len()..]), place) {
                    by_thread.push((thread, place));
                }
                true
            })?;
        marks.main = marks.base;
        for (thread, place) in by_thread {
            if place <= marks.base {
                continue;
            }
            match thread {
                None => marks.main = marks.main.max(place),
                Some(root) => {
                    let mark = marks.threads.entry(root).or_insert(place);
                    *mark = (*mark).max(place);
                }
            }
        }
        Ok(marks)
    }

    /// The places of a user's receipts, with their threads.
    fn read_places(&self, user: &UserId) -> Result<Vec<(Option<String>, Place)>, Error> {
        #[derive(Deserialize)]
        struct At {
            anchor: u64,
            offset: i32,
        }
        let (start, end) = keys::range(keys::receipts_of(self.0.key, user.as_str()));
        let mut found = Vec::new();
        if self.receipts_position() == 0 {
            return Ok(found);
        }
        self.reader()
            .scan(Family::RoomReceipt, &start, &end, false, &mut |row, value| {
                let tail = std::str::from_utf8(&row[start.len()..]).unwrap_or_default();
                let thread = tail.split_once('\0').map(|(_, thread)| thread);
                let thread = thread.filter(|thread| !thread.is_empty()).map(str::to_owned);
                if let Ok(At { anchor, offset }) = record::decode(value) {
                    found.push((thread, Place { anchor, offset }));
                }
                true
            })?;
        Ok(found)
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
        let mut left = UNREAD_EVENTS_MAX;
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
                found.len() < UNREAD_EVENTS_MAX
            })?;
        Ok(found)
    }

    /// Whether one of these users ever was a member; true without looking where they are many.
    fn has_any(&self, users: &BTreeSet<OwnedUserId>) -> Result<bool, Error> {
        if users.len() > IGNORED_LOOKED_UP_MAX {
            return Ok(true);
        }
        for user in users {
            if self.state_entry("m.room.member", user.as_str())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A user's error as a room's.
pub(crate) fn of_user(error: hearth_users::Error) -> Error {
    match error {
        hearth_users::Error::Storage(error) => Error::Storage(error),
        other => {
            tracing::warn!(error = %other, "a user could not be read for unread counts");
            Error::Damaged("user")
        }
    }
}
