//! Walks the feed of a shard and hands out what other servers must get.
//!
//! What cannot be read of one event, one room or one user is passed over, also where it makes this code panic: the other
//! servers find what they miss by what comes behind it. Only a failure of the storage that may pass is waited for. Up to where
//! the feed was handed out is in the tracker, which outlives a panic, as its shares do in the queues.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::tasks;
use hearth_rooms::{Error, Event, Membership, Room};
use hearth_storage::{EntityKind, FeedItem, FeedKind, Position, ShardId};
use ruma::{OwnedServerName, OwnedUserId, UserId};

use super::Outbound;
use super::targets;
use super::tracker::Tracker;

/// The name of the tasks that read feeds.
pub(super) const FEED_TASK: &str = "federation feed";
/// So many batches of the feed are read at a time.
const PAGE_BATCHES: usize = 64;
/// The pause after the feed could not be read.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

impl Outbound {
    /// Reads a shard's feed until the process stops.
    pub(crate) async fn read_shard(self: Arc<Self>, shard: ShardId, tracker: Arc<Tracker>) {
        // What is published while nobody waits is remembered there.
        let Some(news) = self.published.get(&shard) else {
            return;
        };
        loop {
            match self.read_page(shard, &tracker).await {
                Ok(true) => {}
                Ok(false) => tokio::select! {
                    biased;
                    () = self.shutdown.wait() => return,
                    () = news.notified() => {}
                },
                Err(Error::Storage(hearth_storage::Error::Stopped)) => return,
                Err(error) => {
                    tracing::error!(%error, shard = shard.0, "the feed cannot be sent to other servers");
                    tokio::select! {
                        biased;
                        () = self.shutdown.wait() => return,
                        () = tokio::time::sleep(FAILED_PAUSE) => {}
                    }
                }
            }
            if self.shutdown.is_triggered() {
                return;
            }
        }
    }

    /// Hands out a page; says whether there was anything.
    async fn read_page(self: &Arc<Self>, shard: ShardId, tracker: &Arc<Tracker>) -> Result<bool, Error> {
        let page = self.feed.read(shard, tracker.read(), PAGE_BATCHES)?;
        let found = !page.is_empty();
        for (position, items) in page {
            for item in items {
                let handed_out = tasks::caught(FEED_TASK, self.hand_out(item, position, tracker)).await;
                pass_over(handed_out, "other servers are not told of an event")?;
            }
            tracker.passed(position);
        }
        tracker.advance();
        Ok(found)
    }

    async fn hand_out(
        self: &Arc<Self>,
        item: FeedItem,
        position: Position,
        tracker: &Arc<Tracker>,
    ) -> Result<(), Error> {
        match item.kind {
            FeedKind::RoomEvent => {
                // What is gone is done.
                let Some(room) = self.rooms.room_of_key(item.entity)? else {
                    return Ok(());
                };
                let short = u32::try_from(item.reference).unwrap_or(u32::MAX);
                if let Some(event) = room.event(short)? {
                    self.hand_out_event(&room, &event, position, tracker).await?;
                }
                Ok(())
            }
            FeedKind::RoomState => {
                let Some(room) = self.rooms.room_of_key(item.entity)? else {
                    return Ok(());
                };
                let short = u32::try_from(item.reference).unwrap_or(0);
                let event = if short == 0 { None } else { room.event(short)? };
                let watchers = self.watchers.read().clone();
                for watcher in watchers {
                    let seen = match &event {
                        Some(event) => watcher.event(&room, event).await,
                        None => watcher.members(&room).await,
                    };
                    pass_over(
                        Some(seen),
                        "what is kept of members of other servers is not up to date",
                    )?;
                }
                Ok(())
            }
            FeedKind::UserChange if item.reference == 1 => {
                let log = self.rooms.log();
                let name = hearth_storage::name_of(log.engine().as_ref(), EntityKind::User, item.entity)?;
                match name.map(OwnedUserId::try_from) {
                    Some(Ok(user)) => {
                        let servers = self.servers_sharing(&user)?;
                        self.hand_out_list(&user, servers, position, tracker)
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    async fn hand_out_event(
        self: &Arc<Self>,
        room: &Room,
        event: &Event,
        position: Position,
        tracker: &Arc<Tracker>,
    ) -> Result<(), Error> {
        let watchers = self.watchers.read().clone();
        for watcher in watchers {
            let seen = watcher.event(room, event).await;
            pass_over(
                Some(seen),
                "what is kept of members of other servers is not up to date",
            )?;
        }
        let noted = self.note_meeting(room, event);
        pass_over(Some(noted), "a server is not told who is present")?;
        let own = self.server_name();
        let is_join = event.pdu.sender().server_name() == own
            && event.pdu.kind() == "m.room.member"
            && targets::membership_of(event) == Some(Membership::Join);
        if is_join {
            let told = self
                .servers_met(room, event, position)
                .and_then(|servers| self.hand_out_list(event.pdu.sender(), servers, position, tracker));
            pass_over(Some(told), "servers are not told of a user's devices")?;
        }
        if !targets::is_ours(event, own) {
            return Ok(());
        }
        for target in targets::of_event(room, event, own)? {
            let destination = self.destination(&target.server)?;
            destination.push_event(room, event.short, target.is_last, tracker.share(position));
            self.run(&destination);
        }
        Ok(())
    }

    /// The servers that must hear of the devices of a local user who joined, also those that get the join itself from the
    /// server through which the user came in.
    fn servers_met(
        &self,
        room: &Room,
        join: &Event,
        position: Position,
    ) -> Result<BTreeSet<OwnedServerName>, Error> {
        let mut servers: BTreeSet<OwnedServerName> = room.servers().into_iter().collect();
        let full_since = room.full_since();
        if room.is_partial() || join.header.position <= full_since {
            // Of a device without keys that nothing has happened to there is nothing to know yet. Who is in the room
            // without this server knowing it asks when there is something to encrypt.
            let user = self.users.get(join.pdu.sender()).ok().flatten();
            let is_new = |user: &hearth_users::User| user.device_list_is_new().unwrap_or(false);
            if user.is_none_or(|user| is_new(&user)) {
                return Ok(BTreeSet::new());
            }
        }
        if full_since == position {
            // The state is whole now. Servers that were in the room meanwhile, and that this server did not know of, missed
            // what changed, though they may have left since.
            let now = room.view().root;
            let mut met = BTreeSet::new();
            for (before, after) in room.state_changes(join.header.state_before, now)? {
                for event in room.events(&[before, after].into_iter().flatten().collect::<Vec<_>>())? {
                    let member = event
                        .pdu
                        .state_key()
                        .filter(|_| event.pdu.kind() == "m.room.member");
                    let member = member.and_then(|member| <&UserId>::try_from(member).ok());
                    met.extend(member.map(|member| member.server_name().to_owned()));
                }
            }
            // Those that were known heard of each change when it was made.
            for known in room.servers_until_full() {
                met.remove(&known);
            }
            servers.append(&mut met);
        }
        servers.remove(self.server_name());
        Ok(servers)
    }

    fn hand_out_list(
        self: &Arc<Self>,
        user: &UserId,
        servers: BTreeSet<OwnedServerName>,
        position: Position,
        tracker: &Arc<Tracker>,
    ) -> Result<(), Error> {
        let Some(handle) = self.users.get(user).ok().flatten() else {
            return Ok(());
        };
        if handle.device_list_stream().unwrap_or(0) == 0 {
            return Ok(());
        }
        for server in servers {
            let destination = self.destination(&server)?;
            destination.push_list(user.to_owned(), tracker.share(position));
            self.run(&destination);
        }
        Ok(())
    }

    /// The other servers that share a room with a local user.
    pub(crate) fn servers_sharing(&self, user: &UserId) -> Result<BTreeSet<OwnedServerName>, Error> {
        let mut servers = BTreeSet::new();
        let Ok(Some(handle)) = self.users.get(user) else {
            return Ok(servers);
        };
        let rooms = handle
            .rooms(&[hearth_users::Membership::Join])
            .map_err(|error| Error::Invalid(error.to_string()))?;
        for entry in rooms {
            let room = self.rooms.get(&entry.room_id);
            let room = pass_over(Some(room), "the servers of a room are not known")?.flatten();
            servers.extend(room.iter().flat_map(Room::servers));
        }
        servers.remove(self.server_name());
        Ok(servers)
    }
}

/// Passes over what cannot be read of one event, room or user, or panicked. A failure that may pass stays one.
fn pass_over<T>(outcome: Option<Result<T, Error>>, comes_of_it: &'static str) -> Result<Option<T>, Error> {
    tasks::pass_over(FEED_TASK, outcome, Error::is_of_storage, comes_of_it)
}
