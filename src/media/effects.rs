//! What one media entity's batch changes in another, delivered through the outbox; and the removal of
//! files that nothing uses.
//!
//! A file's references are rows of the file's own entity, since several media items may share one
//! file. A file without references is removed by `settle`, which needs a note to look at it: an
//! upload writes one before it places a file, a removed reference leaves one.

use std::sync::Arc;

use async_trait::async_trait;
use hearth_cluster::OutboxHandler;
use hearth_core::tasks::spawn;
use hearth_storage::{Batch, Family, OutboxRow, Position, ShardId, record};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    files::{Files, Note},
    id::MediaId,
    record::{MediaRecord, ReferenceRow, State, file_entity, member_key, members, own_key},
    store::{Inner, MediaStore},
};

/// The outbox operation of this crate. Stored; it never changes.
pub const MEDIA_OUTBOX_OP: u8 = 32;

/// An effect on another entity of the media family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    /// To a media item: it was announced.
    Announce {
        uploader: String,
        created_ms: u64,
        expires_ms: u64,
    },
    /// To a media item: it was announced and nothing came.
    Expire,
    /// To a user's announced ids: the content came.
    Arrived { media_id: String },
    /// To a file: a media item uses it.
    AddReference { media: String },
    /// To a file: a media item uses it no more.
    RemoveReference { media: String },
}

impl Effect {
    /// The outbox row that carries it.
    pub fn to(&self, entity: &str) -> OutboxRow {
        Inner::outbox_row(entity, record::encode(self))
    }
}

/// Applies effects. Each may come twice.
pub(crate) struct Effects(pub Arc<Inner>);

#[async_trait]
impl OutboxHandler for Effects {
    async fn apply(
        &self,
        target: &str,
        payload: &[u8],
        _source: (ShardId, Position, u16),
    ) -> Result<(), hearth_storage::Error> {
        let effect: Effect = record::decode(payload)?;
        match self.0.clone().apply(target, effect).await {
            Ok(()) => Ok(()),
            Err(Error::Storage(error)) => Err(error),
            Err(error) => Err(hearth_storage::Error::Apply(error.to_string())),
        }
    }
}

impl Inner {
    async fn apply(self: Arc<Self>, target: &str, effect: Effect) -> Result<(), Error> {
        let mut batch = Batch::new();
        match effect {
            Effect::Announce {
                uploader,
                created_ms,
                expires_ms,
            } => {
                if self.record_at(target)?.is_some() {
                    return Ok(());
                }
                let value = MediaRecord {
                    uploader: Some(uploader),
                    created_ms,
                    state: State::Pending { expires_ms },
                    quarantined_by: None,
                };
                batch.put(Family::Media, own_key(target), record::encode(&value));
            }
            Effect::Expire => {
                // Waiting could block the row behind this one that the lock's holder waits for. An
                // item in use is left: what is expired is not answered anyway.
                let Some(_one) = self.locks.try_lock(target) else {
                    return Ok(());
                };
                let pending = self.record_at(target)?;
                if pending.is_some_and(|one| matches!(one.state, State::Pending { .. })) {
                    batch.delete(Family::Media, own_key(target));
                    self.commit(target, batch, Vec::new()).await?;
                }
                return Ok(());
            }
            Effect::Arrived { media_id } => {
                batch.delete(Family::Media, member_key(target, &media_id));
            }
            Effect::AddReference { media } => {
                let value = record::encode(&ReferenceRow {});
                batch.put(Family::Media, member_key(target, &media), value);
            }
            Effect::RemoveReference { media } => {
                let hash = target.trim_start_matches('+').to_owned();
                self.files.write_note(&hash, &media, &*self.random)?;
                batch.delete(Family::Media, member_key(target, &media));
                self.commit(target, batch, Vec::new()).await?;
                // Not here: an upload of the same bytes may hold the file's lock while it waits for
                // a row behind this one.
                spawn("media-settle", async move {
                    if let Err(error) = self.settle(&hash).await {
                        tracing::warn!(%error, "an unused media file stays until the next start");
                    }
                });
                return Ok(());
            }
        }
        self.commit(target, batch, Vec::new()).await
    }

    fn record_at(&self, key: &str) -> Result<Option<MediaRecord>, Error> {
        match MediaId::from_key(key) {
            Some(media) => self.read(&media),
            None => Ok(None),
        }
    }

    /// Looks at the notes of one file: removes the file if nothing uses it, and the notes that are
    /// answered. A note of a record whose reference is still on its way is kept.
    pub(crate) async fn settle(&self, hash: &str) -> Result<(), Error> {
        let _file = self.locks.lock(hash).await;
        let notes = self.files.notes(Some(hash))?;
        let engine = self.cluster.log().engine();
        let is_used = !members(&**engine, &file_entity(hash), 1)?.is_empty();
        let mut on_its_way = false;
        for note in &notes {
            on_its_way |= self.is_awaited(note)?;
        }
        if is_used || on_its_way {
            for note in notes {
                if !self.is_awaited(&note)? {
                    self.files.remove_note(&note);
                }
            }
            return Ok(());
        }
        let hash = hash.to_owned();
        let remove = move |files: &Files| {
            files.remove_content(&hash)?;
            notes.iter().for_each(|note| files.remove_note(note));
            Ok(())
        };
        self.on_disk(remove).await
    }

    /// Whether the note's media item uses the file but its reference is not there yet.
    fn is_awaited(&self, note: &Note) -> Result<bool, Error> {
        let Some(record) = self.record_at(&note.media)? else {
            return Ok(false);
        };
        let State::Stored(content) = record.state else {
            return Ok(false);
        };
        let key = member_key(&file_entity(&note.hash), &note.media);
        let engine = self.cluster.log().engine();
        Ok(content.hash == note.hash && engine.get(Family::Media, &key)?.is_none())
    }
}

impl MediaStore {
    /// Removes files that a crash left without a record: looks only at what was noted, so it costs
    /// what was going on at the crash, not the size of the repository.
    pub async fn sweep(&self) -> Result<(), Error> {
        let mut hashes: Vec<String> = self
            .inner
            .files
            .notes(None)?
            .into_iter()
            .map(|note| note.hash)
            .collect();
        hashes.dedup();
        for hash in hashes {
            self.inner.settle(&hash).await?;
        }
        Ok(())
    }
}
