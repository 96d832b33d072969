//! What the state at a join lacks because the keys of some servers could not be had then: their events cannot be
//! checked and are left out. The same goes for the state before a later event, where that is asked for because events
//! before it are missing; of that it may also lack what the server names and nobody gives. The room remembers whose keys
//! these are. When one of them can be had, because its server answers again or sends something itself, these states are
//! asked for once more, and the events since are judged again with them.

use std::{collections::BTreeSet, time::Duration};

use hearth_core::tasks;
use hearth_storage::{Batch, Family, Record, record};
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName, UserId};
use serde::{Deserialize, Serialize};

use crate::{Error, KeyAt, Room, judge_again::StatesBefore, keys, receive::in_time, state_tree::NodeId};

/// The name of the task that asks for them.
const TASK: &str = "state of unknown servers";
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

/// For want of what events of a state were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lacks {
    /// Keys, each with the time at which it has to be valid.
    pub(crate) keys: BTreeSet<KeyAt>,
    /// Whether a server named events that neither it nor others gave.
    pub(crate) events: bool,
}

impl Lacks {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.events
    }
}

/// What the state at a join lacks, or the state before another event.
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
    pub(crate) keys: BTreeSet<KeyAt>,
    /// Whether it lacks events that were named and not given.
    #[serde(default)]
    events: bool,
    /// How often they were asked for.
    tries: u32,
    /// Servers whose events made the room ask for the state again: each of them may do so once in the life of a process.
    #[serde(skip)]
    shown: BTreeSet<OwnedServerName>,
}

impl Lacking {
    pub(crate) fn new(join: OwnedEventId, resident: OwnedServerName, lacks: Lacks) -> Self {
        Self {
            join,
            resident,
            is_later: false,
            later: Vec::new(),
            keys: lacks.keys,
            events: lacks.events,
            tries: 0,
            shown: BTreeSet::new(),
        }
    }
}

impl Room {
    /// An event was left out for want of a key.
    pub(crate) fn note_missing_key(&self, key: &KeyAt) {
        let mut lacks = self.0.lacks.lock();
        if lacks.keys.len() < KEYS_MAX {
            lacks.keys.insert(key.clone());
        }
    }

    /// An event of a state was named, and nobody gives it.
    pub(crate) fn note_missing_event(&self) {
        self.0.lacks.lock().events = true;
    }

    /// What was left out since this was asked last.
    pub(crate) fn take_lacks(&self) -> Lacks {
        std::mem::take(&mut *self.0.lacks.lock())
    }

    /// The state before a join lacks events. What is lacking since an earlier join of another user stays written down. Says
    /// whether nothing was: then nobody asks for it yet.
    pub(crate) async fn lacks_at_join(
        &self,
        join: &EventId,
        resident: &ServerName,
        lacks: Lacks,
    ) -> Result<bool, Error> {
        let before = self.0.lacking.lock().as_ref().map(|lacking| lacking.join.clone());
        if before.is_some_and(|before| before != join) {
            self.lacks_before(join.to_owned(), resident, lacks).await?;
            return Ok(false);
        }
        let lacking = Lacking::new(join.to_owned(), resident.to_owned(), lacks);
        self.set_lacking(Some(lacking)).await?;
        Ok(true)
    }

    /// The state before an event that `server` sent lacks events.
    pub(crate) async fn lacks_before(
        &self,
        event: OwnedEventId,
        server: &ServerName,
        lacks: Lacks,
    ) -> Result<(), Error> {
        let before = self.0.lacking.lock().clone();
        let Some(mut lacking) = before else {
            let mut lacking = Lacking::new(event, server.to_owned(), lacks);
            lacking.is_later = true;
            self.set_lacking(Some(lacking)).await?;
            self.start_filling();
            return Ok(());
        };
        if lacking.later.len() >= LATER_MAX {
            return Ok(());
        }
        lacking.later.push((event, server.to_owned()));
        let mut is_news = lacks.events && !lacking.events;
        lacking.events |= lacks.events;
        for key in lacks.keys {
            is_news |= lacking.keys.iter().all(|(name, _, _)| *name != key.0);
            lacking.shown.remove(&key.0);
            if lacking.keys.len() < KEYS_MAX {
                lacking.keys.insert(key);
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
        tasks::spawn(TASK, async move {
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
                // After a panic it is tried again like after a failure: nobody else would.
                match tasks::caught(TASK, room.try_filling(&lacking)).await {
                    Some(Ok(())) => {}
                    Some(Err(Error::Storage(hearth_storage::Error::Stopped))) => return,
                    Some(Err(error)) => {
                        tracing::info!(%error, room = %room.id(), "the state at the join is not filled in yet");
                    }
                    None => {
                        tracing::error!(room = %room.id(), "filling in the state at the join panicked; it is tried again");
                    }
                }
            }
        });
    }

    async fn try_filling(&self, lacking: &Lacking) -> Result<(), Error> {
        let keys: Vec<KeyAt> = lacking.keys.iter().cloned().collect();
        let found = self.0.rooms.remote()?.keys(&keys).await;
        let _turn = self.0.receiving.lock().await;
        match found.is_empty() && !lacking.events {
            true => {
                let keys = lacking.keys.clone();
                self.put_lacking(Lacks { keys, events: false }).await
            }
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
        self.take_lacks();
        let roots = in_time(&lacking.resident, self.filled_states(&lacking)).await?;
        let missing = self.take_lacks();
        let mut servers: BTreeSet<OwnedServerName> =
            lacking.keys.iter().map(|(server, _, _)| server.clone()).collect();
        if lacking.events {
            servers.extend(self.servers_of_new_members(&roots)?);
        }
        self.judge_again(&StatesBefore {
            roots,
            completes: (!lacking.is_later).then(|| lacking.join.clone()),
            servers,
        })
        .await?;
        tracing::info!(room = %self.id(), ?missing, "the state at the join is filled in");
        self.put_lacking(missing).await
    }

    /// The states before the join and the later events, as they are now.
    async fn filled_states(&self, lacking: &Lacking) -> Result<Vec<(OwnedEventId, NodeId)>, Error> {
        let first = std::iter::once((&lacking.join, &lacking.resident));
        let later = lacking.later.iter().map(|(event, server)| (event, server));
        let mut roots = Vec::new();
        for (event, server) in first.chain(later) {
            roots.push((event.clone(), self.filled_state_before(server, event).await?));
        }
        Ok(roots)
    }

    /// The servers of those members whom the states before some events lacked.
    fn servers_of_new_members(
        &self,
        roots: &[(OwnedEventId, NodeId)],
    ) -> Result<BTreeSet<OwnedServerName>, Error> {
        let mut servers = BTreeSet::new();
        for (id, root) in roots {
            let Some(event) = self.placed(id)? else { continue };
            for new in self.events(&self.state_diff(event.header.state_before, *root)?)? {
                let member = new.pdu.state_key().filter(|_| new.pdu.kind() == "m.room.member");
                let member = member.and_then(|member| <&UserId>::try_from(member).ok());
                servers.extend(member.map(|member| member.server_name().to_owned()));
            }
        }
        Ok(servers)
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

    /// Writes down what is missing still.
    async fn put_lacking(&self, missing: Lacks) -> Result<(), Error> {
        if missing.is_empty() {
            return self.set_lacking(None).await;
        }
        let next = self.0.lacking.lock().clone().map(|lacking| Lacking {
            tries: lacking.tries + 1,
            keys: missing.keys,
            events: missing.events,
            ..lacking
        });
        self.set_lacking(next).await
    }

    /// Remembers what the state lacks, or that it lacks nothing.
    pub(crate) async fn set_lacking(&self, lacking: Option<Lacking>) -> Result<(), Error> {
        self.check_open()?;
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
