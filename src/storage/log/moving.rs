//! Dropping and opening single shards of a log that goes on: what moving a shard to another owner is made of.
//!
//! A log drops a shard when everything that was reserved in it is on disk; from then on another log on the same data
//! may open it. **Invariant:** between the two nobody writes the shard, and whoever opens it takes from the disk all
//! that a restart would: the head, the cursors, the numbers of entities.
//!
//! What the layers above keep of a shard's entities in memory is theirs to forget before the shard is opened again.

use std::sync::atomic::Ordering;

use super::{Log, Shard, shards};
use crate::{Batch, Error, ShardId};

impl Log {
    /// Whether a shard is open here: [`Error::NotOpen`] is what its tickets come to otherwise.
    pub fn is_open(&self, shard: ShardId) -> bool {
        self.inner.shard(shard).queue.lock().opened().is_ok()
    }

    /// Lets go of a shard: from now on its tickets are refused, what was reserved before is written, and then the shard
    /// is nobody's until it is opened, here or by another log on the same data. The other shards go on meanwhile. What
    /// was published of it stays readable. If the wait is given up, the shard takes no tickets, and dropping it can be
    /// tried again.
    ///
    /// # Panics
    /// If there is no such shard.
    pub async fn drop_shard(&self, shard: ShardId) -> Result<(), Error> {
        let inner = &self.inner;
        let dropped = inner.shard(shard);
        let last = dropped.queue.lock().drain()?;
        self.wait_durable(shard, last).await?;
        let mut batch = Batch::new();
        inner.cursors.let_go(shard, &mut batch);
        inner.defer(batch);
        // With the removals that wait for a commit which the shard will not have.
        inner.write_deferred(true);
        dropped.queue.lock().set_dropped()?;
        dropped.dropped.store(true, Ordering::Release);
        for (_, waiter) in std::mem::take(&mut *dropped.waiters.lock()) {
            let _ = waiter.send(Err(Error::NotOpen));
        }
        Ok(())
    }

    /// Opens a shard that was dropped, as a start does: goes on above every position that was used, whoever used it.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn open_shard(&self, shard: ShardId) -> Result<(), Error> {
        let inner = &self.inner;
        let at = inner.index(shard);
        let (opened, info) = (&inner.shards[at], inner.infos[at]);
        if !opened.is_dropped() {
            // It is open already, or was not dropped to the end.
            return opened.queue.lock().opened().map(drop);
        }
        let head = shards::head(&*inner.engine, shard)?;
        inner.cursors.take_up(&*inner.engine, shard)?;
        inner.allocator.forget(info.first, info.last);
        opened.tail.restart(head);
        opened.published.store(head, Ordering::Release);
        opened.settled.store(head, Ordering::Release);
        opened.dropped.store(false, Ordering::Release);
        opened.queue.lock().open(head)
    }
}

impl Shard {
    /// Whether another log may write the shard.
    pub(super) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }
}
