//! The duty: from the feeds, and at first from the rooms, into the index.
//!
//! An event or a room that cannot be read is passed over, also where it makes this code panic: all others can be found. What
//! fails otherwise gives up all that was not committed, which is then done again; so does a panic, after which the duty goes
//! on from the last commit.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hearth_core::tasks;
use hearth_rooms::{Event, NodeId, Place, Relation, Room, Short};
use hearth_storage::{EntityKey, FeedItem, FeedKind, Position, ShardId};
use tokio::sync::OwnedMutexGuard;

use crate::document::{self, Document, EventKey};
use crate::index::Writer;
use crate::progress::{Building, Progress};
use crate::{Error, Search};

/// The duty's name in the cursors.
pub(crate) const DUTY: &str = "search";

/// Its name as a task.
pub(crate) const TASK: &str = "search duty";

/// How many batches of a feed are read at once.
const BATCHES_AT_ONCE: usize = 64;
/// How often a feed is read in one section: between sections others have the threads.
const READS_OF_SECTION: usize = 8;
/// A commit makes files, which cost when they are merged: so much is gathered for one while nobody searches.
pub(crate) const GATHERING: Duration = Duration::from_secs(10);
/// How often is looked meanwhile whether that much is there: what came a moment ago is still in memory.
const GATHERING_STEPS: u32 = 40;
/// How many events are put into one commit at most.
pub(crate) const COMMIT_EVENTS: usize = 10_000;
/// A feed without anything to index is let go after so many positions.
const COMMIT_POSITIONS: u64 = 1_000;
/// Events of the rooms that are read in one section while the index is built.
const BUILD_EVENTS: usize = 500;
/// How long a failed index is left alone.
const RETRY: Duration = Duration::from_secs(30);

/// What whoever brings the index up to date has.
pub(crate) struct Work {
    /// What the last commit holds.
    committed: Progress,
    /// What the next one will.
    progress: Progress,
    writer: Option<Writer>,
    /// What was published after these positions is in the index only once its item of the feed was taken in; before
    /// them the building, or a process before this one, may have been quicker.
    fresh_after: BTreeMap<ShardId, Position>,
    /// Which rooms are encrypted, by the state in which they were when one of their events was last taken in. Forgotten
    /// with each commit.
    encrypted: HashMap<EntityKey, (NodeId, bool)>,
    /// Events put in or taken out since the last commit.
    changes: usize,
    /// The server is stopping: the index is no longer ours to write.
    closed: bool,
}

impl Work {
    /// Work that goes on from here, where this much was published.
    pub(crate) fn new(progress: Progress, published: Vec<(ShardId, Position)>) -> Self {
        Self {
            committed: progress.clone(),
            progress,
            writer: None,
            fresh_after: published.into_iter().collect(),
            encrypted: HashMap::new(),
            changes: 0,
            closed: false,
        }
    }

    /// Whether nothing of what a batch placed can be in the index yet.
    fn is_fresh(&self, shard: ShardId, position: Position) -> bool {
        let after = self.fresh_after.get(&shard);
        self.progress.building().is_none() && after.is_some_and(|after| position > *after)
    }

    /// Whether a room is encrypted now.
    fn is_encrypted(&mut self, room: &Room) -> Result<bool, Error> {
        let root = room.view().root;
        if let Some((known, is_encrypted)) = self.encrypted.get(&room.key())
            && *known == root
        {
            return Ok(*is_encrypted);
        }
        let is_encrypted = document::is_encrypted(room)?;
        self.encrypted.insert(room.key(), (root, is_encrypted));
        Ok(is_encrypted)
    }

    /// Forgets what was not committed: it is done again.
    fn give_up(&mut self) {
        self.encrypted.clear();
        self.writer = None;
        self.progress = self.committed.clone();
        self.changes = 0;
    }
}

/// An item of a feed.
#[derive(Clone, Copy)]
struct Taken {
    /// The position of its batch.
    position: Position,
    /// Whether nothing of what the batch placed can be in the index yet.
    is_fresh: bool,
    /// Whether the batch has no other event. What changes its event then has an item of a later batch.
    is_alone: bool,
    item: FeedItem,
}

/// What is known of an event's document before it is made.
#[derive(Clone, Copy)]
enum Before {
    /// There is none, and an edit of the event comes with a later item of the feed.
    Unchanged,
    /// There is none.
    Absent,
    /// There may be one, of what the event is now.
    Unknown,
    /// There may be one, of what the event was.
    Present,
}

impl Search {
    /// Starts the duty.
    pub fn start(self: &Arc<Self>) {
        let search = self.clone();
        tasks::keep_running(TASK, &self.shutdown, move || {
            let search = search.clone();
            async move {
                tokio::select! {
                    biased;
                    () = search.shutdown.wait() => {}
                    () = search.run() => {}
                }
            }
        });
    }

    /// Lets go of the index, so that another server may write to it. What was not committed is done again.
    pub async fn close(&self) {
        let mut work = self.work.lock().await;
        work.give_up();
        work.closed = true;
    }

    async fn run(self: &Arc<Self>) {
        loop {
            match self.build_some().await {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(%error, "the search index cannot be built; it is tried again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        loop {
            self.news.notified().await;
            gathered(|| self.published_sum()).await;
            if let Err(error) = self.catch_up().await {
                tracing::error!(%error, "the search index cannot be brought up to date; it is tried again");
                tokio::time::sleep(RETRY).await;
                self.news.notify_one();
            }
        }
    }

    /// How much was ever published, over all shards.
    fn published_sum(&self) -> u64 {
        self.rooms
            .log()
            .published_all()
            .into_iter()
            .map(|(_, position)| position)
            .sum()
    }

    /// Puts everything into the index that was published before the call, and shows it to searches.
    pub(crate) async fn catch_up(self: &Arc<Self>) -> Result<(), Error> {
        let published = self.rooms.log().published_all();
        loop {
            let up_to = published.clone();
            if self
                .working(move |search, work| search.follow_feeds(work, &up_to))
                .await?
            {
                return Ok(());
            }
        }
    }

    /// Builds a part of the index from the rooms; false when it is whole.
    pub(crate) async fn build_some(self: &Arc<Self>) -> Result<bool, Error> {
        self.working(|search, work| search.build_part(work)).await
    }

    /// Runs a section with the writer, one at a time, away from the threads that serve requests and behind them.
    async fn working<T: Send + 'static>(
        self: &Arc<Self>,
        section: impl FnOnce(&Arc<Self>, &mut Work) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut work: OwnedMutexGuard<Work> = self.work.clone().lock_owned().await;
        if work.closed {
            return Err(hearth_storage::Error::Stopped.into());
        }
        let search = self.clone();
        self.indexing
            .run(move || {
                let outcome = tasks::caught_now(TASK, || section(&search, &mut work));
                let outcome = outcome.unwrap_or(Err(Error::Panicked));
                if outcome.is_err() {
                    work.give_up();
                }
                outcome
            })
            .await
    }

    /// Reads some of what was published up to these positions; true when that is all.
    fn follow_feeds(
        self: &Arc<Self>,
        work: &mut Work,
        published: &[(ShardId, Position)],
    ) -> Result<bool, Error> {
        let mut reads = 0;
        for &(shard, published) in published {
            loop {
                let after = work.progress.cursor(shard);
                if after >= published {
                    break;
                }
                if reads == READS_OF_SECTION {
                    return Ok(false);
                }
                reads += 1;
                let batches = self.feed.read(shard, after, BATCHES_AT_ONCE)?;
                let last = batches.last().map(|(position, _)| *position);
                for (position, items) in batches {
                    let is_fresh = work.is_fresh(shard, position);
                    let is_event =
                        |item: &&FeedItem| matches!(item.kind, FeedKind::RoomEvent | FeedKind::RoomHistory);
                    let is_alone = items.iter().filter(is_event).count() == 1;
                    for item in items {
                        let taken = Taken {
                            position,
                            is_fresh,
                            is_alone,
                            item,
                        };
                        self.take_in(work, taken)?;
                    }
                }
                // What lies between two batches has no items.
                work.progress.set_cursor(shard, last.unwrap_or(published));
                if work.changes >= COMMIT_EVENTS {
                    self.commit(work)?;
                }
            }
        }
        if work.changes > 0 || work.progress.ahead_of(&work.committed) >= COMMIT_POSITIONS {
            self.commit(work)?;
        }
        Ok(true)
    }

    fn build_part(self: &Arc<Self>, work: &mut Work) -> Result<bool, Error> {
        let Some(building) = work.progress.building() else {
            return Ok(false);
        };
        let (key, from) = match building.in_room() {
            Some(found) => found,
            None => match self.rooms.key_after(building.last_room())? {
                Some(key) => (key, Place::START),
                None => {
                    work.progress.set_building(None);
                    work.fresh_after = self.rooms.log().published_all().into_iter().collect();
                    // A server without rooms has nothing to write down yet.
                    if building.last_room().is_some() {
                        self.commit(work)?;
                    }
                    return Ok(false);
                }
            },
        };
        let built = tasks::caught_now(TASK, || self.build_room(work, key, from));
        let reached = pass_over(built, "a room cannot be searched")?.flatten();
        work.progress.set_building(Some(match reached {
            Some(place) => Building::up_to(key, place),
            None => Building::whole(key),
        }));
        if work.changes >= COMMIT_EVENTS {
            self.commit(work)?;
        }
        Ok(true)
    }

    /// Indexes some events of a room; gives where it goes on.
    fn build_room(
        self: &Arc<Self>,
        work: &mut Work,
        key: EntityKey,
        from: Place,
    ) -> Result<Option<Place>, Error> {
        let Some(room) = self.rooms.room_of_key(key)? else {
            return Ok(None);
        };
        if document::is_encrypted(&room)? {
            return Ok(None);
        }
        let mut rows = Vec::with_capacity(BUILD_EVENTS);
        room.visit_timeline(from, Place::END, false, &mut |row| {
            rows.push(row);
            rows.len() < BUILD_EVENTS
        })?;
        let shorts: Vec<Short> = rows.iter().map(|row| row.short).collect();
        match room.events(&shorts) {
            Ok(events) => {
                for event in events {
                    let built = self.build_event(work, &room, &event);
                    pass_over(Some(built), "an event cannot be searched")?;
                }
            }
            Err(error) if error.is_of_storage() => return Err(error.into()),
            // Which of them cannot be read shows one by one.
            Err(_) => {
                for short in shorts {
                    let event = room.event(short).map_err(Error::from);
                    let event = pass_over(Some(event), "an event cannot be searched")?.flatten();
                    if let Some(event) = event {
                        let built = self.build_event(work, &room, &event);
                        pass_over(Some(built), "an event cannot be searched")?;
                    }
                }
            }
        }
        let is_full = rows.len() == BUILD_EVENTS;
        Ok(rows.last().filter(|_| is_full).map(|row| row.place))
    }

    fn build_event(self: &Arc<Self>, work: &mut Work, room: &Room, event: &Event) -> Result<(), Error> {
        // Nothing of it is in a new index, but the feed may have been quicker.
        if let Some(document) = Document::of(room, event)? {
            self.writer(work)?.replace(&document)?;
            work.changes += 1;
        }
        Ok(())
    }

    /// Does what an item of the feed comes to.
    fn take_in(self: &Arc<Self>, work: &mut Work, taken: Taken) -> Result<(), Error> {
        let taken_in = tasks::caught_now(TASK, || match taken.item.kind {
            FeedKind::RoomEvent | FeedKind::RoomHistory => self.take_in_event(work, taken),
            FeedKind::RoomLife => {
                // A room that is gone is gone from the index; one that is there needs nothing.
                if self.rooms.room_of_key(taken.item.entity)?.is_none() {
                    self.writer(work)?.remove_room(taken.item.entity);
                    work.changes += 1;
                }
                Ok(())
            }
            _ => Ok(()),
        });
        pass_over(taken_in, "an event cannot be searched").map(drop)
    }

    fn take_in_event(self: &Arc<Self>, work: &mut Work, taken: Taken) -> Result<(), Error> {
        let Some(room) = self.rooms.room_of_key(taken.item.entity)? else {
            return Ok(());
        };
        let short = Short::try_from(taken.item.reference).unwrap_or(0);
        let Some(event) = room.event(short)? else {
            return Ok(());
        };
        match event.pdu.kind() {
            "m.room.message" => match edited(&event) {
                Some(target) => self.index_by_id(work, &room, &target, taken.position),
                None => self.index_own(work, &room, &event, taken),
            },
            "m.room.name" | "m.room.topic" => self.index_own(work, &room, &event, taken),
            "m.room.encryption" => {
                if document::is_encrypted(&room)? {
                    self.writer(work)?.remove_room(room.key());
                    work.changes += 1;
                }
                Ok(())
            }
            "m.room.redaction" => match event.pdu.redacts() {
                Some(target) => {
                    let target = ruma::OwnedEventId::from(target);
                    self.index_by_id(work, &room, &target, taken.position)
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Indexes the event that an item of the feed is about, by the item of the batch that placed it.
    fn index_own(
        self: &Arc<Self>,
        work: &mut Work,
        room: &Room,
        event: &Event,
        taken: Taken,
    ) -> Result<(), Error> {
        match event.header.position.cmp(&taken.position) {
            // It was placed later, and has an item there.
            Ordering::Greater => Ok(()),
            // What another server's user says may come after its edit.
            Ordering::Equal
                if taken.is_fresh && taken.is_alone && self.rooms.is_local(event.pdu.sender()) =>
            {
                self.index(work, room, event, Before::Unchanged)
            }
            Ordering::Equal if taken.is_fresh => self.index(work, room, event, Before::Absent),
            _ => self.index(work, room, event, Before::Unknown),
        }
    }

    /// Indexes an event that another one changed, and the one that it was an edit of.
    fn index_by_id(
        self: &Arc<Self>,
        work: &mut Work,
        room: &Room,
        id: &ruma::EventId,
        position: Position,
    ) -> Result<(), Error> {
        let Some(event) = room.event_by_id(id)? else {
            return Ok(());
        };
        let key = EventKey {
            room: room.key(),
            short: event.short,
        };
        for shown in self.index.showing_edit(key)? {
            if let Some(event) = room.event(shown.short)? {
                self.index(work, room, &event, Before::Present)?;
            }
        }
        // What comes with this batch or after it is indexed by its own item, as it is now.
        if event.header.position >= position {
            return Ok(());
        }
        self.index(work, room, &event, Before::Present)
    }

    /// Puts into the index what an event has for it.
    fn index(
        self: &Arc<Self>,
        work: &mut Work,
        room: &Room,
        event: &Event,
        before: Before,
    ) -> Result<(), Error> {
        let document = match before {
            Before::Unchanged => Document::unedited(room, event),
            _ => Document::of(room, event)?,
        };
        let document = match document {
            Some(_) if work.is_encrypted(room)? => None,
            document => document,
        };
        match (document, before) {
            (Some(document), Before::Unchanged | Before::Absent) => self.writer(work)?.add(&document)?,
            (Some(document), _) => self.writer(work)?.replace(&document)?,
            (None, Before::Present) => {
                let key = EventKey {
                    room: room.key(),
                    short: event.short,
                };
                self.writer(work)?.remove(key);
            }
            (None, _) => return Ok(()),
        }
        work.changes += 1;
        Ok(())
    }

    fn writer<'a>(&self, work: &'a mut Work) -> Result<&'a Writer, Error> {
        let writer = match work.writer.take() {
            Some(writer) => writer,
            None => self.index.writer()?,
        };
        Ok(work.writer.insert(writer))
    }

    /// The index first, then the cursors: what a crash takes away between the two is done again.
    fn commit(&self, work: &mut Work) -> Result<(), Error> {
        self.writer(work)?;
        if let Some(writer) = &mut work.writer {
            writer.commit(&work.progress.text())?;
        }
        self.index.reload()?;
        let moved: Vec<(ShardId, u64)> = work
            .progress
            .cursors()
            .filter(|(shard, at)| *at > work.committed.cursor(*shard))
            .collect();
        for (shard, at) in moved {
            self.feed.set_cursor(DUTY, shard, at);
        }
        work.committed = work.progress.clone();
        work.encrypted.clear();
        work.changes = 0;
        Ok(())
    }
}

/// Waits until so much was published that it fills a commit, or for as long as nobody should be missing from the index.
pub(crate) async fn gathered(published: impl Fn() -> u64) {
    let begun = published();
    for _ in 0..GATHERING_STEPS {
        tokio::time::sleep(GATHERING / GATHERING_STEPS).await;
        // A shard that another log writes now is not counted any more.
        if published().saturating_sub(begun) >= COMMIT_EVENTS as u64 {
            return;
        }
    }
}

/// Passes over what cannot be read of one event or one room, or panicked; other failures stay.
fn pass_over<T>(outcome: Option<Result<T, Error>>, comes_of_it: &'static str) -> Result<Option<T>, Error> {
    tasks::pass_over(TASK, outcome, |error| !error.is_of_one_room(), comes_of_it)
}

/// The event that a message is an edit of.
fn edited(event: &Event) -> Option<ruma::OwnedEventId> {
    let relation = Relation::of_content(event.pdu.content())?;
    (relation.rel_type == "m.replace").then_some(relation.event_id)
}
