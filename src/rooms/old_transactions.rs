//! Forgetting the transactions of clients: a client repeats one until it has the answer, and not for ever.

use std::{sync::Arc, time::Duration};

use hearth_cluster::Fate;
use hearth_core::Shutdown;
use hearth_core::tasks::{Rhythm, repeat};
use hearth_storage::Family;

use crate::{Error, Rooms, keys};

/// A transaction is known so long. Who was away longer and repeats it sends the event anew.
const KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Old ones are looked for once a day, for the first time so long after the start.
const FIRST: Duration = Duration::from_secs(60 * 60);

impl Rooms {
    pub(crate) fn start_forgetting(self: &Arc<Self>, shutdown: &Shutdown) {
        repeat(
            "old transactions",
            Rhythm::daily(FIRST),
            shutdown,
            self,
            |rooms: Arc<Self>| async move {
                match rooms.forget_old_transactions().await {
                    Ok(0) => {}
                    Ok(count) => tracing::debug!(count, "old transactions forgotten"),
                    Err(error) => tracing::warn!(%error, "old transactions could not be forgotten"),
                }
            },
        );
    }

    /// Forgets the transactions that are old; gives how many rows changed. Those of earlier versions, which do not say how old
    /// they are, are taken to be of now.
    pub(crate) async fn forget_old_transactions(&self) -> Result<u64, Error> {
        let now = self.clock.now_ms();
        let judge = move |_: &[u8], value: &[u8]| match keys::read_txn(value) {
            Ok((_, Some(made))) if made.saturating_add(KEPT_MS) < now => Fate::Remove,
            Ok((short, None)) => Fate::Replace(keys::txn_value(short, now)),
            _ => Fate::Keep,
        };
        Ok(self.cluster.sweep(&self.chores, Family::RoomTxn, judge).await?)
    }
}
