//! What the state at a join lacks because the keys of some servers could not be had then: their events cannot be
//! checked and are left out. The room remembers whose keys these are. When one of them can be had, because its server
//! answers again or sends something itself, the state before the join is asked for once more, and the events since the
//! join are judged again with it.

use std::{collections::BTreeSet, time::Duration};

use hearth_core::tasks;
use hearth_storage::{Batch, Family, Record, record};
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

use crate::{Error, KeyAt, Room, keys};

/// The pauses between two questions for the keys: the first one, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(6 * 60 * 60);
/// So often the keys are asked for, which takes about two days; then they are left to their servers to show themselves.
const TRIES_MAX: u32 = 12;
/// So many keys are remembered; the state is filled in for all when one of them is here.
const KEYS_MAX: usize = 500;

/// Which keys the state at a join lacks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lacking {
    /// The join before which the state is not whole.
    pub(crate) join: OwnedEventId,
    /// Who let the user in.
    pub(crate) resident: OwnedServerName,
    /// The keys, each with the time at which it has to be valid.
    pub(crate) keys: Vec<KeyAt>,
    /// How often they were asked for.
    tries: u32,
    /// Servers whose events made the room ask for the state again: each of them may do so once in the life of a process.
    #[serde(skip)]
    shown: BTreeSet<OwnedServerName>,
}

impl Lacking {
    pub(crate) fn new(join: OwnedEventId, resident: OwnedServerName, keys: Vec<KeyAt>) -> Self {
        Self {
            join,
            resident,
            keys,
            tries: 0,
            shown: BTreeSet::new(),
        }
    }
}

impl Room {
    /// An event was left out for want of a key.
    pub(crate) fn note_missing_key(&self, key: &KeyAt) {
        let mut missing = self.0.missing_keys.lock();
        if missing.len() < KEYS_MAX {
            missing.insert(key.clone());
        }
    }

    /// The keys that were missing since this was asked last.
    pub(crate) fn take_missing_keys(&self) -> Vec<KeyAt> {
        std::mem::take(&mut *self.0.missing_keys.lock())
            .into_iter()
            .collect()
    }

    /// Fills in the state before the join where `server`, of which an event is here and holds, is one of those whose
    /// keys were missing. The caller has the turn.
    pub(crate) async fn fill_lacking_of(&self, server: &ServerName) {
        let lacks = {
            let mut lacking = self.0.lacking.lock();
            lacking.as_mut().is_some_and(|lacking| {
                lacking.keys.iter().any(|(name, _, _)| name == server)
                    && lacking.shown.insert(server.to_owned())
            })
        };
        if lacks && let Err(error) = self.fill_lacking().await {
            tracing::info!(%error, room = %self.id(), "the state at the join cannot be filled in now");
        }
    }

    /// Asks for the missing keys in the background, until they are here, nobody of this server is in the room, or they
    /// were asked for often enough.
    pub(crate) fn start_filling(&self) {
        let room = self.clone();
        tasks::spawn("state of unknown servers", async move {
            let mut pause = PAUSE_FIRST;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                let Some(lacking) = room.0.lacking.lock().clone() else {
                    return;
                };
                if !room.is_resident() || lacking.tries >= TRIES_MAX {
                    return;
                }
                match room.try_filling(&lacking).await {
                    Ok(()) => {}
                    Err(Error::Storage(hearth_storage::Error::Stopped)) => return,
                    Err(error) => {
                        tracing::info!(%error, room = %room.id(), "the state at the join is not filled in yet");
                    }
                }
            }
        });
    }

    async fn try_filling(&self, lacking: &Lacking) -> Result<(), Error> {
        let found = self.0.rooms.remote()?.keys(&lacking.keys).await;
        let _turn = self.0.receiving.lock().await;
        match found.is_empty() {
            true => self.put_lacking(lacking.keys.clone()).await,
            false => self.fill_lacking().await,
        }
    }

    /// Asks for the state before the join once more, and judges again what came since. The caller has the turn.
    async fn fill_lacking(&self) -> Result<(), Error> {
        let Some(lacking) = self.0.lacking.lock().clone() else {
            return Ok(());
        };
        self.take_missing_keys();
        let root = self.state_before_of(&lacking.resident, &lacking.join).await?;
        let missing = self.take_missing_keys();
        self.judge_again(&lacking.join, root).await?;
        tracing::info!(room = %self.id(), missing = missing.len(), "the state at the join is filled in");
        self.put_lacking(missing).await
    }

    /// Writes down which keys are missing still.
    async fn put_lacking(&self, missing: Vec<KeyAt>) -> Result<(), Error> {
        let next = self.0.lacking.lock().clone().map(|lacking| Lacking {
            tries: lacking.tries + 1,
            keys: missing,
            ..lacking
        });
        self.set_lacking(next.filter(|next| !next.keys.is_empty())).await
    }

    /// Remembers what the state lacks, or that it lacks nothing.
    pub(crate) async fn set_lacking(&self, lacking: Option<Lacking>) -> Result<(), Error> {
        let key = self.0.key;
        let row = keys::room(key, keys::ROOM_LACKING);
        let mut batch = Batch::new();
        match &lacking {
            Some(lacking) => batch.put(Family::Room, row, record::encode(lacking)),
            None => batch.delete(Family::Room, row),
        }
        let record = |_| Record {
            batch,
            ..Record::default()
        };
        self.0.rooms.cluster.commit(key.slot, record).await?;
        *self.0.lacking.lock() = lacking;
        Ok(())
    }
}
