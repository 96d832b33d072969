//! Forgetting the transactions by which messages were sent to devices: a client repeats one until it has the answer, and
//! not for ever.

use std::sync::Arc;
use std::time::Duration;

use hearth_cluster::Fate;
use hearth_core::Shutdown;
use hearth_core::tasks::{Rhythm, repeat};
use hearth_storage::Family;
use hearth_storage::schema::to_device_mark::ToDeviceMarkKey;

use super::rows::mark;
use super::to_device::sent_at;
use crate::error::Result;
use crate::user::Users;

/// A transaction is known so long. Who was away longer and repeats it sends the messages anew.
const KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Old ones are looked for once a day, for the first time so long after the start.
const FIRST: Duration = Duration::from_secs(70 * 60);

impl Users {
    pub(crate) fn start_forgetting(self: &Arc<Self>, shutdown: &Shutdown) {
        repeat(
            "old transactions to devices",
            Rhythm::daily(FIRST),
            shutdown,
            self,
            |users: Arc<Self>| async move {
                match users.forget_old_transactions().await {
                    Ok(0) => {}
                    Ok(count) => tracing::debug!(count, "old transactions to devices forgotten"),
                    Err(error) => {
                        tracing::warn!(%error, "old transactions to devices could not be forgotten")
                    }
                }
            },
        );
    }

    /// Forgets the transactions that are old; gives how many.
    pub(crate) async fn forget_old_transactions(&self) -> Result<u64> {
        let now = self.now_ms();
        let judge = move |key: &[u8], value: &[u8]| {
            let sent = ToDeviceMarkKey::decode(key).filter(|key| key.kind == mark::SENT);
            let made = sent.and_then(|_| sent_at(value));
            match made.is_some_and(|made| made.saturating_add(KEPT_MS) < now) {
                true => Fate::Remove,
                false => Fate::Keep,
            }
        };
        Ok(self
            .cluster
            .sweep(&self.chores, Family::ToDeviceMark, judge)
            .await?)
    }
}
