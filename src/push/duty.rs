//! The duty: from the feed of each shard to the queues of pushers.
//!
//! What cannot be read of one event, one room or one user is passed over, also where it makes this code panic: all others are
//! told of theirs. Only a failure of the storage that may pass holds up a shard, and no other one. How far each feed was read
//! is all that the duty goes by, so it begins anew after a panic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::tasks;
use hearth_events::push::{Outcome, PushEvent, UnknownRoom};
use hearth_rooms::{Event, EventRoom, Room};
use hearth_storage::{Batch, EntityKind, FeedItem, FeedKind, Position, ShardId};
use hearth_users::{Change, InviteVerdict, Membership, RoomEntry, User};
use ruma::push::Action;
use ruma::{OwnedUserId, UserId};

use crate::notification::Told;
use crate::queue::{self, Item, ItemEvent, Source, Target};
use crate::{Error, Push};

/// The duty's name in the cursors.
pub(crate) const DUTY: &str = "push";

/// Its name as a task.
pub(crate) const TASK: &str = "push duty";

/// The pause after a failure that may pass.
const RETRY: Duration = Duration::from_secs(5);

/// How many batches of a feed are worked on at once: the rows of one write.
const BATCHES_AT_ONCE: usize = 64;

/// So many rows are gathered for one write: with many members who have pushers a few events may be as many.
const ROWS_AT_ONCE: usize = 10_000;

/// What is to be written, and whose queues get something.
#[derive(Default)]
struct Queued {
    batch: Batch,
    targets: BTreeSet<Target>,
}

impl Push {
    pub(crate) fn start_duty(self: &Arc<Self>) {
        let push = self.clone();
        tasks::keep_running(TASK, &self.shutdown, move || push.clone().follow_feeds());
    }

    async fn follow_feeds(self: Arc<Self>) {
        loop {
            // Registered before the feeds are read, so that no news is missed.
            let news = self.news.notified();
            let is_done = self.work().await;
            let next = async {
                match is_done {
                    true => news.await,
                    false => tokio::time::sleep(RETRY).await,
                }
            };
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return,
                () = next => {}
            }
        }
    }

    /// Reads all feeds to their ends; false where one of them is to be tried again.
    async fn work(self: &Arc<Self>) -> bool {
        let mut is_done = true;
        for (shard, published) in self.parts.rooms.log().published_all() {
            if let Err(error) = self.read_feed(shard, published).await {
                tracing::error!(%error, shard = shard.0, "notifications could not be worked out; they are tried again");
                is_done = false;
            }
        }
        is_done
    }

    async fn read_feed(self: &Arc<Self>, shard: ShardId, published: Position) -> Result<(), Error> {
        loop {
            let after = self.feed.cursor(DUTY, shard);
            if after >= published || self.shutdown.is_triggered() {
                return Ok(());
            }
            if self.parts.users.pushing_count() == 0 {
                // What was published before anybody has a pusher concerns none.
                self.feed.set_cursor(DUTY, shard, published);
                return Ok(());
            }
            let batches = self.feed.read(shard, after, BATCHES_AT_ONCE)?;
            let Some((last, _)) = batches.last() else {
                self.feed.set_cursor(DUTY, shard, published);
                return Ok(());
            };
            let last = *last;
            self.work_on(shard, &batches, last)?;
            // Requests are served by the same threads.
            tokio::task::yield_now().await;
        }
    }

    /// Queues what some batches of a feed come to, and moves the cursor with it.
    fn work_on(
        self: &Arc<Self>,
        shard: ShardId,
        batches: &[(Position, Vec<FeedItem>)],
        last: Position,
    ) -> Result<(), Error> {
        let mut queued = Queued::default();
        for (position, items) in batches {
            for (index, item) in items.iter().enumerate() {
                let source = Source {
                    shard: shard.0,
                    position: *position,
                    index: u16::try_from(index).unwrap_or(u16::MAX),
                };
                let done = tasks::caught_now(TASK, || self.queue_item(item, source, &mut queued));
                pass_over(done, "nobody is notified of an event")?;
            }
            if queued.batch.len() >= ROWS_AT_ONCE {
                self.write_down(shard, *position, std::mem::take(&mut queued))?;
            }
        }
        self.write_down(shard, last, queued)
    }

    /// Writes down what was queued, with the cursor up to where that is all.
    fn write_down(self: &Arc<Self>, shard: ShardId, last: Position, queued: Queued) -> Result<(), Error> {
        let Queued { mut batch, targets } = queued;
        if targets.is_empty() {
            self.feed.set_cursor(DUTY, shard, last);
            return Ok(());
        }
        let before = self.feed.cursor(DUTY, shard);
        self.feed.set_cursor_in(DUTY, shard, last, &mut batch);
        if let Err(error) = self.engine().write(&batch, true) {
            // What could not be written down is worked out again.
            self.feed.set_cursor(DUTY, shard, before);
            return Err(error.into());
        }
        for target in targets {
            self.send_to(target);
        }
        Ok(())
    }

    fn queue_item(&self, item: &FeedItem, source: Source, queued: &mut Queued) -> Result<(), Error> {
        match item.kind {
            FeedKind::RoomEvent | FeedKind::RoomReceipt => {}
            FeedKind::UserChange => return self.queue_changes(item, source, queued),
            _ => return Ok(()),
        }
        // What is gone by now, with its room, is done.
        let Some(room) = self.parts.rooms.room_of_key(item.entity)? else {
            return Ok(());
        };
        if item.kind == FeedKind::RoomReceipt {
            let Some(user) = room.receipt_user(item.reference)? else {
                return Ok(());
            };
            if self.parts.users.is_pushing(&user)
                && let Some(user) = self.parts.users.get(&user)?
            {
                self.queue_for(&user, source, None, queued)?;
            }
            return Ok(());
        }
        let short = u32::try_from(item.reference).unwrap_or(0);
        let Some(event) = room.event(short)? else {
            return Ok(());
        };
        if event.is_redacted() || !event.is_visible_kind() || event.header.place.offset != 0 {
            return Ok(());
        }
        if event.pdu.kind() == "m.room.redaction" {
            self.queue_redaction(&room, &event, source.beside(), queued)?;
        }
        self.queue_event(&room, &event, source, queued)
    }

    /// Tells the counts to those for whom a redacted event counted as unread.
    fn queue_redaction(
        &self,
        room: &Room,
        redaction: &Event,
        source: Source,
        queued: &mut Queued,
    ) -> Result<(), Error> {
        let Some(target) = redaction.pdu.redacts() else {
            return Ok(());
        };
        let target = room.event_by_id(target)?;
        let Some(target) = target.filter(|target| target.header.redacted_by == Some(redaction.short)) else {
            return Ok(());
        };
        for user in self.concerned(room, &target)? {
            let outcome = self.queue_redaction_for(&user, room, &target, source, queued);
            pass_over(Some(outcome), "a user is not told of a redaction")?;
        }
        Ok(())
    }

    fn queue_redaction_for(
        &self,
        user: &UserId,
        room: &Room,
        target: &Event,
        source: Source,
        queued: &mut Queued,
    ) -> Result<(), Error> {
        let Some(user) = self.parts.users.get(user)? else {
            return Ok(());
        };
        let Some(reader) = room.unread_user(&user)? else {
            return Ok(());
        };
        let was_unread = room.was_unread(&reader, target)?;
        if was_unread == Some(false) {
            return Ok(());
        }
        // What the user's own rules said of the event cannot be asked any more: then a pusher is told if the counts are others
        // than it was told last.
        self.queue_counts(&user, was_unread.is_none(), source, queued)
    }

    /// Asks the rules of everybody whom an event may concern.
    fn queue_event(
        &self,
        room: &Room,
        event: &Event,
        source: Source,
        queued: &mut Queued,
    ) -> Result<(), Error> {
        let users = self.concerned(room, event)?;
        if users.is_empty() {
            return Ok(());
        }
        let Some(parsed) = PushEvent::new(&event.pdu.json) else {
            return Ok(());
        };
        for user in users {
            let outcome = self.queue_event_for(&user, room, event, &parsed, source, queued);
            pass_over(Some(outcome), "a user is not notified of an event")?;
        }
        Ok(())
    }

    fn queue_event_for(
        &self,
        user: &UserId,
        room: &Room,
        event: &Event,
        parsed: &PushEvent,
        source: Source,
        queued: &mut Queued,
    ) -> Result<(), Error> {
        let Some(user) = self.parts.users.get(user)? else {
            return Ok(());
        };
        if !self.wants(&user, event)? {
            return Ok(());
        }
        let rules = user.rules()?;
        let threads = room.subscribed_threads(&user, &rules)?;
        let around = EventRoom::new(room, user.id(), event, &threads);
        let actions = rules.actions(user.id(), parsed, &around);
        if Outcome::of(actions).notify {
            let told = ItemEvent {
                room_id: room.id().to_owned(),
                short: event.short,
                event_id: Some(event.id().to_owned()),
                actions: actions.to_vec(),
            };
            self.queue_for(&user, source, Some(told), queued)
        } else if event.pdu.sender() == user.id() && event.pdu.state_key().is_none() {
            // Who says something has read what was said before; who joins, or changes a name, has not.
            self.queue_for(&user, source, None, queued)
        } else {
            Ok(())
        }
    }

    /// What of a user's own changes is told: an invitation to a room that is not here, whose event is in no room's feed;
    /// and what changes the counts, as leaving a room, muting it, or ignoring somebody.
    fn queue_changes(&self, item: &FeedItem, source: Source, queued: &mut Queued) -> Result<(), Error> {
        let Some(user) = hearth_storage::name_of(self.engine(), EntityKind::User, item.entity)? else {
            return Ok(());
        };
        let Some(user) = OwnedUserId::try_from(user)
            .ok()
            .filter(|user| self.parts.users.is_pushing(user))
        else {
            return Ok(());
        };
        let Some(user) = self.parts.users.get(&user)? else {
            return Ok(());
        };
        let position = source.position;
        let (mut counts, mut stale) = (false, false);
        for (_, change) in user.now().changes_between(position.saturating_sub(1), position)? {
            match change {
                Change::Room(room) => match user.room(&room)? {
                    Some(entry) if entry.is_invited_from_outside() => {
                        if let Some(actions) = self.invitation(&user, &entry)? {
                            let told = ItemEvent {
                                room_id: room,
                                short: 0,
                                event_id: Some(entry.event_id.clone()),
                                actions,
                            };
                            self.queue_for(&user, source, Some(told), queued)?;
                        }
                    }
                    Some(entry) => counts |= matches!(entry.membership, Membership::Leave | Membership::Ban),
                    None => {}
                },
                Change::AccountData { room: None, kind } => {
                    stale |= kind == hearth_users::IGNORED_USERS;
                    counts |= kind == hearth_users::PUSH_RULES;
                }
                Change::Thread { .. } => stale = true,
                _ => {}
            }
        }
        if stale {
            self.badges.forget(&user);
        }
        if !counts && !stale {
            return Ok(());
        }
        // Beside an invitation of the same change.
        self.queue_counts(&user, true, source.beside(), queued)
    }

    /// What the user's rules say of an invitation from outside, if the user is notified of it.
    fn invitation(&self, user: &User, entry: &RoomEntry) -> Result<Option<Vec<Action>>, Error> {
        let wanted = !user.ignored_users()?.contains(&entry.sender)
            && user.invite_verdict(&entry.sender)? == InviteVerdict::Take;
        let event = Told::invitation(user, entry, Vec::new()).to_event().to_string();
        let Some(parsed) = PushEvent::new(event.as_bytes()).filter(|_| wanted) else {
            return Ok(None);
        };
        let rules = user.rules()?;
        let actions = rules.actions(user.id(), &parsed, &UnknownRoom(&entry.room_id));
        Ok(Outcome::of(actions).notify.then(|| actions.to_vec()))
    }

    /// The users with pushers who are in the room, and the one whom the event invites.
    fn concerned(&self, room: &Room, event: &Event) -> Result<Vec<OwnedUserId>, Error> {
        let users = &self.parts.users;
        let mut found = Vec::new();
        if users.pushing_count() < room.view().joined as usize {
            for user in users.pushing() {
                let membership = room.membership(&user).map_err(Error::from);
                let membership = pass_over(Some(membership), "whether a user is in a room is not known")?;
                if membership == Some(hearth_rooms::Membership::Join) {
                    found.push(user);
                }
            }
        } else {
            room.visit_local_members(&mut |user| {
                if users.is_pushing(user) {
                    found.push(user.to_owned());
                }
                true
            })?;
        }
        if let Some(invited) = invited(event)
            && users.is_pushing(invited)
            && !found.iter().any(|user| user == invited)
        {
            found.push(invited.to_owned());
        }
        Ok(found)
    }

    /// Whether a user wants to hear of an event by its sender.
    fn wants(&self, user: &User, event: &Event) -> Result<bool, Error> {
        let sender = event.pdu.sender();
        if user.ignored_users()?.contains(sender) {
            return Ok(false);
        }
        match invited(event) {
            Some(invited) if invited == user.id() => Ok(user.invite_verdict(sender)? == InviteVerdict::Take),
            _ => Ok(true),
        }
    }

    fn queue_counts(
        &self,
        user: &User,
        corrects: bool,
        source: Source,
        queued: &mut Queued,
    ) -> Result<(), Error> {
        let item = Item {
            user: user.id().to_owned(),
            event: None,
            corrects,
            ts: self.parts.clock.now_ms(),
        };
        put_for(user, source, &item, queued)
    }

    fn queue_for(
        &self,
        user: &User,
        source: Source,
        event: Option<ItemEvent>,
        queued: &mut Queued,
    ) -> Result<(), Error> {
        let item = Item {
            user: user.id().to_owned(),
            event,
            corrects: false,
            ts: self.parts.clock.now_ms(),
        };
        put_for(user, source, &item, queued)
    }
}

/// Passes over what cannot be read of one event, room or user, or panicked; a failure that may pass stays one.
pub(crate) fn pass_over<T>(
    outcome: Option<Result<T, Error>>,
    comes_of_it: &'static str,
) -> Result<Option<T>, Error> {
    tasks::pass_over(TASK, outcome, Error::is_of_storage, comes_of_it)
}

/// Queues an item for each pusher of a user that is switched on.
fn put_for(user: &User, source: Source, item: &Item, queued: &mut Queued) -> Result<(), Error> {
    for pusher in user.pushers()? {
        if pusher.disabled {
            continue;
        }
        let target = Target {
            user: user.id().to_owned(),
            key: user.key(),
            app_id: pusher.app_id,
            pushkey: pusher.pushkey,
        };
        queue::put(&mut queued.batch, &target, source, item);
        queued.targets.insert(target);
    }
    Ok(())
}

/// Whom an event invites.
fn invited(event: &Event) -> Option<&UserId> {
    let pdu = &event.pdu;
    if pdu.kind() != "m.room.member" {
        return None;
    }
    #[derive(serde::Deserialize)]
    struct Content {
        membership: String,
    }
    let content: Content = serde_json::from_slice(pdu.content()).ok()?;
    let user = pdu.state_key().filter(|_| content.membership == "invite")?;
    <&UserId>::try_from(user).ok()
}
