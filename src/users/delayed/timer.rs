//! The timer: begins to send what is due in the order in which it is due, also what became due while the server was
//! stopped.

use std::sync::Arc;
use std::time::Duration;

use hearth_core::{Shutdown, tasks};
use hearth_storage::schema::delayed_event::DelayedEventKey;
use hearth_storage::{EntityKey, Family, record};

use super::{
    DONE_KEPT_MS, DONE_KEPT_PER_USER_MAX, DelayedEvent, DelayedEvents, DelayedSender,
    SENT_AT_ONCE_OF_USER_MAX,
};
use crate::error::{Error, Result};
use crate::keys;

/// The name of the task.
const TASK: &str = "delayed events";

/// The longest sleep: the machine's clock may be set meanwhile.
const SLEEP_MAX_MS: u64 = 60_000;

/// So often what is no longer to be known of is forgotten, also of users who send nothing more.
const SWEEP_MS: u64 = 60 * 60 * 1000;

/// How long an event is put off that failed for a reason of the server's own.
const RETRY_MS: u64 = 30_000;

/// How long an event waits for others of its user.
const CROWDED_MS: u64 = 1_000;

/// A place among those of a user; free again when it is dropped.
struct OfUser {
    delayed: Arc<DelayedEvents>,
    user: EntityKey,
}

impl Drop for OfUser {
    fn drop(&mut self) {
        let mut sending = self.delayed.sending.lock();
        if let Some(count) = sending.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                sending.remove(&self.user);
            }
        }
    }
}

impl DelayedEvents {
    /// Reads what waits from the disk and starts the timer. Needs a runtime.
    pub fn start(self: &Arc<Self>, sender: Arc<dyn DelayedSender>, shutdown: &Shutdown) -> Result<()> {
        if self.sender.set(sender).is_err() {
            return Err(Error::Internal("delayed events are sent in one way".to_owned()));
        }
        self.load()?;
        let (delayed, ends) = (self.clone(), shutdown.clone());
        tasks::keep_running(TASK, shutdown, move || {
            let (delayed, ends) = (delayed.clone(), ends.clone());
            async move { delayed.run(&ends).await }
        });
        Ok(())
    }

    fn load(&self) -> Result<()> {
        let mut index = self.index.lock();
        self.log
            .engine()
            .scan(Family::DelayedEvent, &[], &[0xFF], false, &mut |row, value| {
                match (
                    DelayedEventKey::decode(row),
                    record::decode::<DelayedEvent>(value),
                ) {
                    (Some(key), Ok(event)) => index.put(key.user, &event),
                    // One that cannot be read must not keep the server from starting; the reader has logged it.
                    _ => {
                        tracing::error!("a delayed event cannot be read and is not sent");
                        tasks::count_skipped(TASK);
                    }
                }
                true
            })?;
        Ok(())
    }

    async fn run(self: &Arc<Self>, shutdown: &Shutdown) {
        let mut swept = 0;
        while !shutdown.is_triggered() {
            // Registered before the index is read, so that no news is missed.
            let news = self.news.notified();
            let now = self.clock.now_ms();
            if now >= swept + SWEEP_MS {
                swept = now;
                if let Err(error) = self.sweep(now).await {
                    tracing::warn!(%error, "delayed events that are done could not be forgotten");
                }
            }
            let next = self.index.lock().next();
            let wait = match next {
                Some((due, id)) if due <= now => {
                    let Some(of_user) = self.begin(&id) else {
                        self.index.lock().postpone(&id, now.saturating_add(CROWDED_MS));
                        continue;
                    };
                    let Ok(place) = self.places.clone().acquire_owned().await else {
                        return;
                    };
                    // Until it is known what came of it.
                    self.put_off(&id);
                    let delayed = self.clone();
                    tasks::spawn("delayed event", async move {
                        delayed.fire(&id).await;
                        drop((place, of_user));
                    });
                    continue;
                }
                Some((due, _)) => (due - now).min(SLEEP_MAX_MS),
                None => SLEEP_MAX_MS,
            };
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = news => {}
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
            }
        }
    }

    /// A place among those of the event's user, while one is free.
    fn begin(self: &Arc<Self>, id: &str) -> Option<OfUser> {
        let user = self.index.lock().user_of(id)?;
        let mut sending = self.sending.lock();
        let count = sending.entry(user).or_default();
        if *count >= SENT_AT_ONCE_OF_USER_MAX {
            return None;
        }
        *count += 1;
        Some(OfUser {
            delayed: self.clone(),
            user,
        })
    }

    /// Forgets what was done before the time for which that is known.
    pub(super) async fn sweep(&self, now: u64) -> Result<()> {
        let before = now.saturating_sub(DONE_KEPT_MS);
        let users = self.index.lock().done_before(before);
        for user in users {
            self.lanes
                .write(user.slot, |tx| {
                    for old in self.index.lock().prune(user, before, DONE_KEPT_PER_USER_MAX) {
                        tx.delete(Family::DelayedEvent, keys::delayed_event(user, &old));
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }

    async fn fire(&self, id: &str) {
        match self.try_fire(id).await {
            Ok(()) => {}
            Err(error) if error.is_of_storage() => {
                tracing::error!(%error, "a delayed event could not be worked on; it is tried again");
                self.put_off(id);
            }
            // As at the start: what cannot be read is not sent.
            Err(error) => {
                tracing::error!(%error, "a delayed event cannot be read and is not sent");
                tasks::count_skipped(TASK);
                self.index.lock().remove(id);
            }
        }
    }

    async fn try_fire(&self, id: &str) -> Result<()> {
        let _one = self.lock(id).lock().await;
        let now = self.clock.now_ms();
        let Some(event) = self.get_durable(id).await? else {
            return Ok(());
        };
        // Somebody may have managed it while the lock was waited for.
        if event.done.is_some() || event.due() > now {
            return Ok(());
        }
        match self.sender()?.send(&event).await {
            Ok(sent) => self.finish(event, Some(sent), None).await,
            // Neither a fault of the server's own nor a full bucket says that the event may not be sent.
            Err(error) if error.status >= 500 || error.status == 429 => {
                tracing::warn!(%error, "a delayed event could not be sent; it is tried again");
                self.put_off(id);
                Ok(())
            }
            Err(error) => {
                let body = error.body().as_object().cloned().unwrap_or_default();
                self.finish(event, None, Some(body)).await
            }
        }
    }

    /// The event once it is on the disk. One that never came there, because it could not be stored, is forgotten.
    async fn get_durable(&self, id: &str) -> Result<Option<DelayedEvent>> {
        if let Some(event) = self.get(id)? {
            return Ok(Some(event));
        }
        let Some(user) = self.index.lock().user_of(id) else {
            return Ok(None);
        };
        // An operation that changes nothing waits until what was written before is durable.
        self.lanes.write(user.slot, |_| Ok(())).await?;
        let event = self.get(id)?;
        if event.is_none() {
            self.index.lock().remove(id);
        }
        Ok(event)
    }

    fn put_off(&self, id: &str) {
        let due = self.clock.now_ms().saturating_add(RETRY_MS);
        self.index.lock().postpone(id, due);
    }
}
