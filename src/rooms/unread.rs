//! Unread counts (client-server API, "Receiving notifications"), derived from positions.
//!
//! A timeline row holds the running totals of what notifies everybody who has the default rules. Unread is the
//! difference between the newest totals and those at the place up to which the user has read, in the main timeline and
//! in each thread; less what was redacted since; and corrected for the events that name the user. For a user whose own
//! rules may come to something else in the room, the events are counted one by one (`unread_own.rs`); for all others
//! the counts follow from the totals (`unread_totals.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hearth_events::push::{Outcome, PushEvent, Rules};
use hearth_storage::{Family, Position, record};
use hearth_users::User;
use ruma::{OwnedEventId, OwnedUserId, UserId};
use serde::Deserialize;

pub(crate) use crate::unread_totals::ThreadCount;
use crate::{Error, Event, EventRoom, Place, Room, event::Short, keys, unread_rows as rows};

/// How many threads are counted apart: an answer stays within what a client can show. A test comes there sooner.
pub(crate) const THREADS_MAX: usize = if cfg!(test) { 4 } else { 1_000 };

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
    /// In threads, by their roots, where there is something; where there are very many, in the newest.
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

/// What was counted in a room.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) main: Counts,
    /// By their roots.
    pub(crate) threads: HashMap<Short, Counts>,
    /// In the threads that are not told apart.
    pub(crate) rest: Counts,
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

    /// Whether an event counted as unread for a user until it was redacted; none where only its content could tell.
    pub fn was_unread(&self, user: &UnreadUser<'_>, event: &Event) -> Result<Option<bool>, Error> {
        let header = &event.header;
        let is_others = event.pdu.sender() != user.id && !user.ignored.contains(event.pdu.sender());
        if !is_others || header.place.offset != 0 || self.has_read(user, event)? {
            return Ok(Some(false));
        }
        if !self.has_default_counts(user)? {
            return Ok(None);
        }
        if header.class.notify {
            return Ok(Some(true));
        }
        let row = rows::named(self.0.key, user.id, header.place);
        let is_named = header.class.personal && self.reader().get(Family::RoomIndex, &row)?.is_some();
        Ok(Some(is_named))
    }

    /// Whether the counts of a user follow from the running totals.
    fn has_default_counts(&self, user: &UnreadUser<'_>) -> Result<bool, Error> {
        Ok(user.rules.is_default_in(self.id().as_str()) && !self.has_any(&user.ignored)?)
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
        let counts = match self.has_default_counts(user)? {
            true => self.derived(user, &marks, last)?,
            false => self.counted(user, &marks, last)?,
        };
        self.put_together(counts)
    }

    fn put_together(&self, counted: Counted) -> Result<Unread, Error> {
        let threads = counted.threads.into_iter();
        let mut threads: Vec<(Short, Counts)> = threads.filter(|(_, counts)| !counts.is_zero()).collect();
        let mut unread = Unread {
            main: counted.main,
            ..Unread::default()
        };
        let in_threads = threads.iter().map(|(_, counts)| *counts);
        for counts in in_threads.chain([counted.main, counted.rest]) {
            unread.total.notifications += counts.notifications;
            unread.total.highlights += counts.highlights;
        }
        if threads.len() > THREADS_MAX {
            threads.sort_unstable_by_key(|(root, _)| std::cmp::Reverse(*root));
            threads.truncate(THREADS_MAX);
        }
        for (root, counts) in threads {
            if let Some(root) = self.event(root)? {
                unread.threads.insert(root.id().to_owned(), counts);
            }
        }
        Ok(unread)
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
