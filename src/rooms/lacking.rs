//! What the state at a join lacks because the keys of some servers could not be had then: their events cannot be
//! checked and are left out. The same goes for the state before a later event, where that is asked for because events
//! before it are missing. The room remembers whose keys these are. When one of them can be had, because its server
//! answers again or sends something itself, these states are asked for once more, and the events since are judged again
//! with them.

use std::{collections::BTreeSet, time::Duration};

use hearth_core::tasks;
use hearth_storage::{Batch, Family, Record, record};
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

use crate::{Error, KeyAt, Room, judge_again::StatesBefore, keys, state_tree::NodeId};

/// The pauses between two questions for the keys: the first one, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(6 * 60 * 60);
/// So often the keys are asked for, which takes about two days; then they are left to their servers to show themselves.
const TRIES_MAX: u32 = 12;
/// So many keys are remembered; the state is filled in for all when one of them is here.
const KEYS_MAX: usize = 500;
/// Before so many later events the state is filled in too.
const LATER_MAX: usize = 8;
/// So many other servers are asked for a state where the one that gave it does not.
const SERVERS_MAX: usize = 3;

/// Which keys the state at a join lacks, or the state before another event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lacking {
    /// The join before which the state is not whole.
    pub(crate) join: OwnedEventId,
    /// Who let the user in.
    pub(crate) resident: OwnedServerName,
    /// Whether `join` is no join but a later event, and `resident` who sent it.
    #[serde(default)]
    is_later: bool,
    /// Later events before which it is not whole either, and who sent them.
    #[serde(default)]
    later: Vec<(OwnedEventId, OwnedServerName)>,
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
            is_later: false,
            later: Vec::new(),
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

    /// The state before a join lacks events for want of some keys. What is lacking since an earlier join of another user
    /// stays written down. Says whether nothing was: then nobody asks for the keys yet.
    pub(crate) async fn lacks_at_join(
        &self,
        join: &EventId,
        resident: &ServerName,
        keys: Vec<KeyAt>,
    ) -> Result<bool, Error> {
        let before = self.0.lacking.lock().as_ref().map(|lacking| lacking.join.clone());
        if before.is_some_and(|before| before != join) {
            self.lacks_before(join.to_owned(), resident, keys).await?;
            return Ok(false);
        }
        let lacking = Lacking::new(join.to_owned(), resident.to_owned(), keys);
        self.set_lacking(Some(lacking)).await?;
        Ok(true)
    }

    /// The state before an event that `server` sent lacks events for want of some keys.
    pub(crate) async fn lacks_before(
        &self,
        event: OwnedEventId,
        server: &ServerName,
        keys: Vec<KeyAt>,
    ) -> Result<(), Error> {
        let before = self.0.lacking.lock().clone();
        let Some(mut lacking) = before else {
            let mut lacking = Lacking::new(event, server.to_owned(), keys);
            lacking.is_later = true;
            self.set_lacking(Some(lacking)).await?;
            self.start_filling();
            return Ok(());
        };
        if lacking.later.len() >= LATER_MAX {
            return Ok(());
        }
        lacking.later.push((event, server.to_owned()));
        let mut is_news = false;
        for key in keys {
            is_news |= lacking.keys.iter().all(|(name, _, _)| *name != key.0);
            lacking.shown.remove(&key.0);
            if lacking.keys.len() < KEYS_MAX && !lacking.keys.contains(&key) {
                lacking.keys.push(key);
            }
        }
        let has_ended = lacking.tries >= TRIES_MAX;
        if is_news {
            lacking.tries = 0;
        }
        self.set_lacking(Some(lacking)).await?;
        if is_news && has_ended {
            self.start_filling();
        }
        Ok(())
    }

    /// Fills in the state before the join where `server`, of which an event is here and holds, is one of those whose
    /// keys were missing. The caller has the turn.
    pub(crate) async fn fill_lacking_of(&self, server: &ServerName) {
        if self.is_partial() {
            return;
        }
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
        let join = self.0.lacking.lock().as_ref().map(|lacking| lacking.join.clone());
        tasks::spawn("state of unknown servers", async move {
            let mut pause = PAUSE_FIRST;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                let Some(lacking) = room.0.lacking.lock().clone() else {
                    return;
                };
                // What came in its place has a task of its own.
                if Some(&lacking.join) != join.as_ref() {
                    return;
                }
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

    /// Asks for the states once more, and judges again what came since. The caller has the turn.
    async fn fill_lacking(&self) -> Result<(), Error> {
        let Some(lacking) = self.0.lacking.lock().clone() else {
            return Ok(());
        };
        // The rest of the state comes first: that makes the room whole, and this would seem to.
        if self.is_partial() {
            return Ok(());
        }
        self.take_missing_keys();
        let first = std::iter::once((&lacking.join, &lacking.resident));
        let later = lacking.later.iter().map(|(event, server)| (event, server));
        let mut roots = Vec::new();
        for (event, server) in first.chain(later) {
            roots.push((event.clone(), self.filled_state_before(server, event).await?));
        }
        let missing = self.take_missing_keys();
        self.judge_again(&StatesBefore {
            roots,
            completes: (!lacking.is_later).then(|| lacking.join.clone()),
            servers: lacking.keys.iter().map(|(server, _, _)| server.clone()).collect(),
        })
        .await?;
        tracing::info!(room = %self.id(), missing = missing.len(), "the state at the join is filled in");
        self.put_lacking(missing).await
    }

    /// The state before an event as the server has it that gave it before, or else another one in the room.
    async fn filled_state_before(&self, server: &ServerName, event: &EventId) -> Result<NodeId, Error> {
        let mut outcome = self.state_before_of(server, event).await;
        for other in self.servers_to_ask(SERVERS_MAX) {
            if outcome.is_ok() {
                break;
            }
            if other != server {
                outcome = self.state_before_of(&other, event).await;
            }
        }
        outcome
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
