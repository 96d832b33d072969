//! Emptying the queues: one task for each pusher that has something to be told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_core::http::{Destination, OutboundRequest, OutboundResponse, TransportError};
use hearth_core::tasks;
use hearth_users::{Pusher, RoomEntry, User};
use http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;
use ruma::UserId;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

use crate::duty::pass_over;
use crate::notification::{self, Told};
use crate::queue::{self, Item, ItemEvent, Target};
use crate::{Error, Push, web_push};

/// The name of the task that empties a queue.
const TASK: &str = "pusher";

/// How many requests are under way at once.
const REQUESTS_MAX: usize = 256;

/// How many of them go to one gateway: one that never answers leaves places for all others.
const REQUESTS_OF_GATEWAY_MAX: usize = 32;

/// How many gateways are told apart.
const GATEWAYS_MAX: usize = 1_000;

/// For how many pushers it is known what they were told last.
const TOLD_MAX: usize = 20_000;

/// How long a gateway may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of an answer is read: it lists the pushkeys of one request.
const RESPONSE_MAX_BYTES: usize = 64 << 10;

/// So often a new subscription is asked to show itself, within half a minute.
const ACTIVATION_ATTEMPTS: u32 = 4;

/// The pause after the first failure; it doubles up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LONGEST: Duration = Duration::from_secs(15 * 60);

/// How many items are looked at together. As many, or failures, are signs of an outage: then each room is told of once.
const ITEMS_AT_ONCE: usize = 32;

/// What is older is told to nobody any more.
const ITEM_AGE_MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// The pushers that are being told something.
pub(crate) struct Sending {
    active: Mutex<HashMap<Target, Active>>,
    places: Semaphore,
    /// The places of each gateway, by its address.
    gateways: quick_cache::sync::Cache<String, Arc<Semaphore>>,
    /// The counts that pushers were told last.
    told: quick_cache::sync::Cache<Target, u64>,
}

/// A task that empties a queue.
#[derive(Default)]
struct Active {
    /// Whether more came while it was at work.
    more: bool,
    /// Ends its pause after a failure.
    retry: Arc<Notify>,
}

/// An item with its row in the queue.
type QueuedItem = (Vec<u8>, Item);

impl Default for Sending {
    fn default() -> Self {
        Self {
            active: Mutex::default(),
            places: Semaphore::new(REQUESTS_MAX),
            gateways: quick_cache::sync::Cache::new(GATEWAYS_MAX),
            told: quick_cache::sync::Cache::new(TOLD_MAX),
        }
    }
}

/// How a try went.
enum Sent {
    /// The queue is empty.
    Empty,
    /// Something was told, or need not be.
    Done,
    /// The gateway did not take it: once more, later.
    Failed,
}

impl Push {
    /// Sees to it that a queue is emptied.
    pub(crate) fn send_to(self: &Arc<Self>, target: Target) {
        let retry = {
            let mut active = self.sending.active.lock();
            if let Some(known) = active.get_mut(&target) {
                known.more = true;
                return;
            }
            active.entry(target.clone()).or_default().retry.clone()
        };
        let push = self.clone();
        tasks::spawn(TASK, async move { push.empty(&target, &retry).await });
    }

    /// Ends the pause of a pusher that was set again: it may have another address, or its client knows that the gateway is
    /// back.
    pub(crate) fn retry(&self, target: &Target) {
        if let Some(active) = self.sending.active.lock().get(target) {
            active.retry.notify_one();
        }
    }

    async fn empty(self: &Arc<Self>, target: &Target, retry: &Notify) {
        let mut pause = BACKOFF_FIRST;
        let mut failures = 0;
        while !self.shutdown.is_triggered() {
            // After a panic the queue is emptied on, a pause later: nobody else would.
            let sent = tasks::caught(TASK, self.send_next(target, failures)).await;
            match sent.unwrap_or(Ok(Sent::Failed)) {
                Ok(Sent::Empty) => {
                    let mut active = self.sending.active.lock();
                    match active.get_mut(target) {
                        Some(known) if known.more => known.more = false,
                        _ => {
                            active.remove(target);
                            return;
                        }
                    }
                    continue;
                }
                Ok(Sent::Done) => {
                    (pause, failures) = (BACKOFF_FIRST, 0);
                    continue;
                }
                Ok(Sent::Failed) => {}
                Err(error) => tracing::warn!(%error, "a notification could not be sent"),
            }
            failures += 1;
            let wait = pause + self.spread(pause);
            pause = (pause * 2).min(BACKOFF_LONGEST);
            tokio::select! {
                biased;
                () = self.shutdown.wait() => {}
                () = retry.notified() => pause = BACKOFF_FIRST,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.sending.active.lock().remove(target);
    }

    /// Up to half of a pause more, so that pushers of one gateway do not all come back at once.
    fn spread(&self, pause: Duration) -> Duration {
        let mut byte = [0];
        self.parts.random.fill(&mut byte);
        pause / 2 * u32::from(byte[0]) / 255
    }

    async fn send_next(&self, target: &Target, failures: usize) -> Result<Sent, Error> {
        let oldest = self.parts.clock.now_ms().saturating_sub(ITEM_AGE_MAX_MS);
        let queue::First {
            mut items,
            unreadable,
        } = queue::first(self.engine(), target, ITEMS_AT_ONCE)?;
        if !unreadable.is_empty() {
            tracing::error!(rows = unreadable.len(), user = %target.user, "rows of a queue of notifications cannot be read and are dropped");
            tasks::count_skipped(TASK);
            queue::remove(self.engine(), &unreadable)?;
            return Ok(Sent::Done);
        }
        if items.is_empty() {
            return Ok(Sent::Empty);
        }
        if failures > 0 || items.len() >= ITEMS_AT_ONCE {
            // So that neither the queue grows while nobody takes it, nor all of it comes down on a device at once.
            queue::compact(self.engine(), target, oldest)?;
            items = queue::first(self.engine(), target, ITEMS_AT_ONCE)?.items;
        }
        let user = self.parts.users.get(&target.user)?;
        let pusher = user
            .as_ref()
            .map(|user| user.pusher(&target.app_id, &target.pushkey))
            .transpose()?
            .flatten();
        let (Some(user), Some(pusher)) = (user, pusher) else {
            queue::clear(self.engine(), target)?;
            self.sending.told.remove(target);
            return Ok(Sent::Done);
        };
        if pusher.disabled || web_push::activation(&pusher).is_some() {
            // Nothing is told of what comes while it is switched off, nor until the client has shown that it is reached.
            queue::clear(self.engine(), target)?;
            return Ok(Sent::Done);
        }
        let (stale, current) = sort(items, oldest, failures);
        if !stale.is_empty() {
            queue::remove(self.engine(), &stale)?;
        }
        let Some((row, item)) = current else {
            return Ok(Sent::Done);
        };
        let outcome = self.tell(target, &user, &pusher, &item).await?;
        if matches!(outcome, Sent::Done) {
            queue::remove(self.engine(), &[row])?;
        }
        Ok(outcome)
    }

    /// Tells a gateway of one item.
    async fn tell(&self, target: &Target, user: &User, pusher: &Pusher, item: &Item) -> Result<Sent, Error> {
        let told = match &item.event {
            None => None,
            // What cannot be read now never can: it must not be tried before all others for a day.
            Some(event) => {
                let told = self.unread_event(user, event);
                match pass_over(Some(told), "a user is not told of an event")?.flatten() {
                    Some(told) => Some(told),
                    None => return Ok(Sent::Done),
                }
            }
        };
        let unread = self.badge(user)?;
        let last = self.sending.told.get(target);
        if told.is_none() && (last == Some(unread) || (item.corrects && last.is_none())) {
            return Ok(Sent::Done);
        }
        let body = notification::body(pusher, user, told.as_ref(), unread);
        let Some(request) = self.request_for(pusher, body) else {
            return Ok(Sent::Done);
        };
        let answer = match self.request(request).await {
            Ok(answer) if answer.status.is_success() => answer,
            Ok(answer) if pusher.is_web_push() && web_push::has_ended(answer.status) => {
                return self.forget(target, user).await;
            }
            Ok(answer) => {
                tracing::debug!(status = %answer.status, "a push gateway refused a notification");
                return Ok(Sent::Failed);
            }
            Err(error) => {
                tracing::debug!(%error, "a push gateway could not be reached");
                return Ok(Sent::Failed);
            }
        };
        if is_rejected(&answer.body, &pusher.pushkey) {
            return self.forget(target, user).await;
        }
        self.sending.told.insert(target.clone(), unread);
        Ok(Sent::Done)
    }

    /// Sends a request when there is a place for it.
    async fn request(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        let gateway = match &request.destination {
            Destination::Url(base) => base.clone(),
            Destination::Server(name) => name.to_string(),
        };
        let new = || Ok::<_, TransportError>(Arc::new(Semaphore::new(REQUESTS_OF_GATEWAY_MAX)));
        let gateway = self.sending.gateways.get_or_insert_with(&gateway, new)?;
        let closed = || TransportError::Refused("the server is stopping".to_owned());
        let _of_gateway = gateway.acquire().await.map_err(|_| closed())?;
        let _place = self.sending.places.acquire().await.map_err(|_| closed())?;
        self.parts.outbound.send(request).await
    }

    /// The other side knows the pusher no more.
    async fn forget(&self, target: &Target, user: &User) -> Result<Sent, Error> {
        user.delete_pusher(&target.app_id, &target.pushkey).await?;
        queue::clear(self.engine(), target)?;
        self.sending.told.remove(target);
        Ok(Sent::Done)
    }

    /// The request that tells a pusher what a gateway would be told.
    fn request_for(&self, pusher: &Pusher, body: Value) -> Option<OutboundRequest> {
        if pusher.is_web_push() {
            let message = web_push::message(pusher, body);
            return web_push::request(pusher, &self.parts.vapid, &message, self.parts.clock.now_ms());
        }
        let mut request = request(pusher.url(), Bytes::from(body.to_string()))?;
        let json = HeaderValue::from_static("application/json");
        request.headers.insert(header::CONTENT_TYPE, json);
        Some(request)
    }

    /// Sees to a pusher that was just set.
    pub(crate) async fn pusher_was_set(&self, user: &UserId, app_id: &str, pushkey: &str) {
        match self.parts.users.get(user) {
            Ok(Some(known)) => self.retry(&Target {
                user: user.to_owned(),
                key: known.key(),
                app_id: app_id.to_owned(),
                pushkey: pushkey.to_owned(),
            }),
            Ok(None) => return,
            Err(error) => tracing::warn!(%error, "a pusher that was set could not be looked at"),
        }
        self.send_activation(user, app_id, pushkey).await;
    }

    /// Sends a new subscription the token by which its client shows that it is reached. What fails is tried a few times;
    /// then the client has to subscribe again.
    async fn send_activation(&self, user: &UserId, app_id: &str, pushkey: &str) {
        for attempt in 0..ACTIVATION_ATTEMPTS {
            tokio::time::sleep(BACKOFF_FIRST * attempt * 5).await;
            match self.try_activation(user, app_id, pushkey).await {
                Ok(Sent::Failed) => {}
                Ok(_) => return,
                Err(error) => tracing::warn!(%error, "a subscription could not be asked to show itself"),
            }
        }
    }

    async fn try_activation(&self, user: &UserId, app_id: &str, pushkey: &str) -> Result<Sent, Error> {
        let Some(user) = self.parts.users.get(user)? else {
            return Ok(Sent::Done);
        };
        let pusher = user.pusher(app_id, pushkey)?;
        let Some(pusher) = pusher.filter(|pusher| !pusher.disabled) else {
            return Ok(Sent::Done);
        };
        let Some(message) = web_push::activation(&pusher) else {
            return Ok(Sent::Done);
        };
        let request = web_push::request(&pusher, &self.parts.vapid, &message, self.parts.clock.now_ms());
        let Some(request) = request else {
            return Ok(Sent::Done);
        };
        match self.request(request).await {
            Ok(answer) if answer.status.is_success() => Ok(Sent::Done),
            Ok(answer) if web_push::has_ended(answer.status) => {
                user.delete_pusher(app_id, pushkey).await?;
                Ok(Sent::Done)
            }
            Ok(_) | Err(_) => Ok(Sent::Failed),
        }
    }

    /// The event of an item, if the user still has to be told of it: it is there, and was not read meanwhile.
    fn unread_event(&self, user: &User, item: &ItemEvent) -> Result<Option<Told>, Error> {
        let actions = item.actions.clone();
        if item.short == 0 {
            let entry = user.room(&item.room_id)?;
            let entry = entry.filter(RoomEntry::is_invited_from_outside);
            let entry = entry.filter(|entry| item.is(&entry.event_id));
            return Ok(entry.map(|entry| Told::invitation(user, &entry, actions)));
        }
        let Some(room) = self.parts.rooms.get(&item.room_id)? else {
            return Ok(None);
        };
        let event = room.event(item.short)?.filter(|event| item.is(event.id()));
        let Some(event) = event.filter(|event| !event.is_redacted()) else {
            return Ok(None);
        };
        let wanted = match room.unread_user(user)? {
            Some(reader) => !room.has_read(&reader, &event)?,
            // Who is not in the room is told of the invitation alone, while it stands.
            None => {
                let invited = room.membership(user.id())? == hearth_rooms::Membership::Invite;
                let about = event.pdu.state_key() == Some(user.id().as_str());
                invited && about && event.pdu.kind() == "m.room.member"
            }
        };
        wanted.then(|| Told::event(&room, &event, actions)).transpose()
    }
}

/// The items that nobody is told of any more, and one of the others: the first, or, after failures, each in its turn, so
/// that one which a gateway never takes holds up no other.
fn sort(items: Vec<QueuedItem>, oldest: u64, failures: usize) -> (Vec<Vec<u8>>, Option<QueuedItem>) {
    let (mut stale, mut kept) = (Vec::new(), Vec::new());
    let mut has_counts = false;
    for (row, item) in items.into_iter().rev() {
        // The newest counts are those that hold.
        let again = item.event.is_none() && std::mem::replace(&mut has_counts, true);
        if again || item.ts < oldest {
            stale.push(row);
        } else {
            kept.push((row, item));
        }
    }
    let turn = failures % kept.len().max(1);
    let current = (!kept.is_empty()).then(|| kept.swap_remove(kept.len() - 1 - turn));
    (stale, current)
}

/// A request to a gateway or a service of Web Push, without headers; none where the URL is not one that a pusher may have.
pub(crate) fn request(url: &str, body: Bytes) -> Option<OutboundRequest> {
    let path = url
        .find("://")
        .and_then(|at| url[at + 3..].find('/').map(|slash| at + 3 + slash))?;
    Some(OutboundRequest {
        destination: Destination::Url(url[..path].to_owned()),
        method: Method::POST,
        path_and_query: url[path..].to_owned(),
        headers: HeaderMap::new(),
        body,
        timeout: REQUEST_TIMEOUT,
        max_response_bytes: RESPONSE_MAX_BYTES,
    })
}

/// Whether the gateway says that the pushkey is not known any more.
fn is_rejected(answer: &[u8], pushkey: &str) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        rejected: Vec<String>,
    }
    serde_json::from_slice::<Answer>(answer)
        .is_ok_and(|answer| answer.rejected.iter().any(|key| key == pushkey))
}
