//! Guests leave a room that closes to them (client-server API, "Guest Access").
//!
//! A consumer of the feeds with a durable cursor: whoever closes a room need not wait, and nothing is lost over a restart.

use std::sync::Arc;
use std::time::Duration;

use hearth_core::{Shutdown, tasks};
use hearth_storage::{Feed, FeedItem, FeedKind, Start};
use hearth_users::Users;
use ruma::OwnedUserId;
use tokio::sync::Notify;

use crate::{Error, Room, Rooms, unread::of_user};

/// The consumer's name in the cursors.
const CONSUMER: &str = "guests";

/// Its name as a task.
const TASK: &str = "guests";

/// How many batches of a feed are read at once.
const BATCHES_AT_ONCE: usize = 64;

/// The pause after a failure that may pass.
const RETRY: Duration = Duration::from_secs(5);

/// Takes guests out of rooms that forbid them.
struct Guests {
    rooms: Arc<Rooms>,
    users: Arc<Users>,
    feed: Feed,
    news: Arc<Notify>,
}

impl Rooms {
    /// Starts to take guests out of rooms that forbid them. Needs a runtime.
    pub fn watch_guests(self: &Arc<Self>, users: Arc<Users>, shutdown: &Shutdown) -> Result<(), Error> {
        let feed = Feed::new(&self.log);
        feed.register(CONSUMER, Start::Now)?;
        let news = Arc::new(Notify::new());
        let noted = news.clone();
        self.log.on_publish(Box::new(move |_| noted.notify_one()));
        let guests = Guests {
            rooms: self.clone(),
            users,
            feed,
            news,
        };
        let (guests, ends) = (Arc::new(guests), shutdown.clone());
        tasks::keep_running(TASK, shutdown, move || {
            let (guests, ends) = (guests.clone(), ends.clone());
            async move { guests.run(&ends).await }
        });
        Ok(())
    }
}

impl Rooms {
    /// Guests are not taken at all: what was read for them holds back no feed.
    pub fn forget_guests(&self) -> Result<(), Error> {
        Ok(Feed::new(&self.log).unregister(CONSUMER)?)
    }
}

impl Guests {
    async fn run(&self, shutdown: &Shutdown) {
        loop {
            // Registered before the feeds are read, so that no news is missed.
            let news = self.news.notified();
            let failed = self.read(shutdown).await;
            let failed = failed.inspect_err(|error| {
                tracing::error!(%error, "guests could not be taken out of a room; it is tried again");
            });
            let next = async {
                match failed {
                    Ok(()) => news.await,
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = next => {}
            }
        }
    }

    /// Reads all feeds to their ends.
    async fn read(&self, shutdown: &Shutdown) -> Result<(), Error> {
        for (shard, published) in self.rooms.log.published_all() {
            while !shutdown.is_triggered() {
                let after = self.feed.cursor(CONSUMER, shard);
                if after >= published {
                    break;
                }
                let batches = self.feed.read(shard, after, BATCHES_AT_ONCE)?;
                for item in batches.iter().flat_map(|(_, items)| items) {
                    let done = tasks::caught(TASK, self.work_on(item)).await;
                    let comes_of_it = "whether a room closes to guests cannot be read";
                    tasks::pass_over(TASK, done, Error::is_of_storage, comes_of_it)?;
                }
                let reached = batches.last().map_or(published, |(last, _)| *last);
                self.feed.set_cursor(CONSUMER, shard, reached);
            }
        }
        Ok(())
    }

    /// Does what an item of a feed comes to. What cannot be read of one room keeps nobody from the others.
    async fn work_on(&self, item: &FeedItem) -> Result<(), Error> {
        match self.closed_room(item)? {
            Some(room) => self.empty(&room).await,
            None => Ok(()),
        }
    }

    /// The room in which an item changes who may be there, if guests may not.
    fn closed_room(&self, item: &FeedItem) -> Result<Option<Room>, Error> {
        if item.kind != FeedKind::RoomEvent {
            return Ok(None);
        }
        // What is gone by now, with its room, is done.
        let Some(room) = self.rooms.room_of_key(item.entity)? else {
            return Ok(None);
        };
        let event = room.event(u32::try_from(item.reference).unwrap_or(0))?;
        let decides = event.is_some_and(|event| event.pdu.kind() == "m.room.guest_access");
        Ok((decides && !room.guests_can_join()?).then_some(room))
    }

    async fn empty(&self, room: &Room) -> Result<(), Error> {
        let mut members: Vec<OwnedUserId> = Vec::new();
        room.visit_local_members(&mut |user| {
            members.push(user.to_owned());
            true
        })?;
        for member in members {
            let Some(user) = self.users.get(&member).map_err(of_user)? else {
                continue;
            };
            if !user.account().map_err(of_user)?.guest {
                continue;
            }
            let reason = "This room is closed to guests";
            match room.leave(&member, Some(reason)).await {
                Ok(_) => {}
                Err(Error::Storage(error)) => return Err(error.into()),
                Err(error) => tracing::warn!(%error, "a guest could not be taken out of a room"),
            }
        }
        Ok(())
    }
}
