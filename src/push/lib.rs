//! Push: who is notified of an event, and the sender that tells push gateways.
//!
//! Two halves with a durable queue between them. The duty reads the feed of every shard once, asks the push rules of
//! those members of the room who have pushers, and writes what is to be sent into the queue, in one batch with its
//! cursor. The sender empties the queue of each pusher by itself: a gateway that is down delays no other.

mod badge;
mod duty;
mod error;
mod notification;
mod queue;
mod sender;
mod web_push;

use std::sync::Arc;

use hearth_core::http::SharedOutbound;
use hearth_core::random::SharedRandom;
use hearth_core::{SharedClock, Shutdown, tasks};
use hearth_rooms::Rooms;
use hearth_storage::{Feed, Start};
use hearth_users::Users;
use tokio::sync::Notify;

pub use error::Error;
pub use web_push::Vapid;

/// What push needs of the server.
pub struct PushParts {
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// The users.
    pub users: Arc<Users>,
    /// The way to the gateways.
    pub outbound: SharedOutbound,
    /// The time.
    pub clock: SharedClock,
    /// Randomness, which spreads repetitions.
    pub random: SharedRandom,
    /// By which services of Web Push know this server.
    pub vapid: Vapid,
}

/// Notifications of all users.
pub struct Push {
    pub(crate) parts: PushParts,
    pub(crate) feed: Feed,
    pub(crate) badges: badge::Badges,
    pub(crate) sending: sender::Sending,
    shutdown: Shutdown,
    /// Something was published.
    news: Arc<Notify>,
}

impl Push {
    /// Makes the duty known to the feed. Nothing runs yet.
    pub fn new(parts: PushParts, shutdown: Shutdown) -> Result<Arc<Self>, Error> {
        let log = parts.rooms.log().clone();
        let feed = Feed::new(&log);
        feed.register(duty::DUTY, Start::Now)?;
        let news = Arc::new(Notify::new());
        let noted = news.clone();
        log.on_publish(Box::new(move |_| noted.notify_one()));
        Ok(Arc::new(Self {
            parts,
            feed,
            badges: badge::Badges::default(),
            sending: sender::Sending::default(),
            shutdown,
            news,
        }))
    }

    /// Starts the duty, and sends what a stop has left.
    pub fn start(self: &Arc<Self>) -> Result<(), Error> {
        for target in queue::targets(self.engine())? {
            self.send_to(target);
        }
        let push = Arc::downgrade(self);
        self.parts.users.on_pusher(Box::new(move |user, app_id, pushkey| {
            let Some(push) = push.upgrade() else { return };
            let (user, app_id, pushkey) = (user.to_owned(), app_id.to_owned(), pushkey.to_owned());
            tasks::spawn("pusher activation", async move {
                push.pusher_was_set(&user, &app_id, &pushkey).await;
            });
        }));
        self.start_duty();
        Ok(())
    }

    pub(crate) fn engine(&self) -> &dyn hearth_storage::Engine {
        &**self.parts.rooms.log().engine()
    }
}
