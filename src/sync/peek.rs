//! Following a room from outside, where everybody may read it (client-server API, "Room Previews").

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use hearth_core::limits;
use hearth_rooms::{Membership, Place, Rendering, Room, Rooms, Visibility};
use hearth_storage::EntityKey;
use hearth_users::User;
use ruma::DeviceId;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{BatchToken, Error, SyncEngine};

/// Events in one answer.
const PEEK_MAX_EVENTS: usize = 100;

/// The rooms that somebody follows from outside at the moment. Entries live as long as the requests that wait.
#[derive(Default)]
pub(crate) struct Peeks(DashMap<EntityKey, Arc<Notify>>);

/// One request's interest in a room.
struct Interest<'a> {
    peeks: &'a Peeks,
    key: EntityKey,
    notify: Arc<Notify>,
}

impl Peeks {
    /// Wakes who follows a room, after each of its changes from now on.
    pub(crate) fn listen(self: &Arc<Self>, rooms: &Rooms) {
        let peeks = Arc::downgrade(self);
        rooms.on_change(Box::new(move |changed| {
            if let Some(peeks) = peeks.upgrade()
                && let Some(notify) = peeks.0.get(&changed.room.key())
            {
                notify.notify_waiters();
            }
        }));
    }

    fn follow(&self, key: EntityKey) -> Interest<'_> {
        let notify = self.0.entry(key).or_default().clone();
        let peeks = self;
        Interest { peeks, key, notify }
    }
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        // The map's own and this one: nobody else follows the room.
        self.peeks
            .0
            .remove_if(&self.key, |_, notify| Arc::strong_count(notify) <= 2);
    }
}

impl SyncEngine {
    /// Whether a user who is not in a room may follow it.
    pub fn may_peek(&self, user: &User, room: &Room) -> Result<bool, Error> {
        Ok(room.membership(user.id())? != Membership::Join
            && room.history_visibility()? == Visibility::WorldReadable)
    }

    /// The events of a room after a token, or from now on, for a user who [may peek](Self::may_peek): waits until there
    /// are some, or the time is over.
    pub async fn peek(
        &self,
        user: &User,
        device: Option<&DeviceId>,
        room: &Room,
        from: Option<&str>,
        timeout: Duration,
    ) -> Result<Value, Error> {
        let now = Place {
            anchor: room.view().last_n,
            offset: 0,
        };
        let start = match from.map(BatchToken::parse).transpose()? {
            Some(BatchToken::Sync(token)) if token.shard(room.shard()) == 0 => now,
            Some(token) => token.place_in(room)?,
            None => now,
        };
        let timeout = timeout.min(Duration::from_millis(limits::SYNC_MAX_TIMEOUT_MS));
        let deadline = tokio::time::Instant::now() + timeout;
        let interest = self.peeks.follow(room.key());
        loop {
            let woken = interest.notify.notified();
            tokio::pin!(woken);
            // Registered before the room is looked at, so that no change is lost.
            woken.as_mut().enable();
            let mut viewer = room.viewer(user.id())?;
            let page = room.page(start, None, false, PEEK_MAX_EVENTS, &mut viewer, &|_| true)?;
            let is_over = tokio::time::Instant::now() >= deadline || self.shutdown.is_triggered();
            if is_over || !page.events.is_empty() {
                let end = page.events.last().map_or(start, |event| event.header.place);
                let rendering = Rendering {
                    device: device.map(DeviceId::as_str),
                    ..Rendering::default()
                };
                let chunk = room.render_all(&page.events, &mut viewer, &rendering)?;
                let (start, end) = (BatchToken::from(start), BatchToken::from(end));
                return Ok(json!({ "chunk": chunk, "start": start.to_string(), "end": end.to_string() }));
            }
            tokio::select! {
                biased;
                () = &mut woken => {}
                () = self.shutdown.wait() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }
}
