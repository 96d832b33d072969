//! The media store: looking items up, reading them, and taking them away.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use hearth_cluster::Cluster;
use hearth_core::{
    clock::SharedClock, limits::MEDIA_WAIT_MAX_MS, places::Places, random::SharedRandom, tasks::Pool,
};
use hearth_storage::{Batch, Family, OutboxRow, Record, record, slot_of};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName, UserId};
use tokio::sync::Notify;

use crate::{
    effects::{Effect, Effects, MEDIA_OUTBOX_OP},
    error::Error,
    files::{ByteStream, Files},
    id::MediaId,
    locks::Locks,
    range::ByteRange,
    record::{Content, KIND, MediaRecord, State, file_entity, own_key, read},
    remote::RemoteMedia,
    upload::Description,
};

/// How many pictures are worked on at once. A large one takes seconds, and some hundred MB while it is decoded; it must
/// neither hold up those who log in or send events, nor fill the memory on a machine of many processors.
const PICTURES_AT_ONCE_MAX: usize = 2;

/// So many files of other servers come at once, so that the largest take about a gigabyte and a half: a file is in memory as a
/// whole until it is on the disk, and another server can give large ones slowly.
const REMOTE_AT_ONCE_MAX: usize = 32;
/// So many of them come from one server: it takes more than three that are slow to hold up the others.
pub(crate) const REMOTE_OF_SERVER_MAX: usize = 8;
/// So long a file waits for its place.
const PLACE_WAIT_MAX: Duration = Duration::from_secs(60);

/// What the store takes from the configuration.
#[derive(Clone, Debug)]
pub struct MediaSettings {
    /// Where the files lie.
    pub directory: PathBuf,
    /// This server's name.
    pub server_name: OwnedServerName,
    /// The largest upload, and the largest file taken from another server.
    pub max_upload_bytes: u64,
}

/// The media repository. Clones share it.
#[derive(Clone)]
pub struct MediaStore {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub settings: MediaSettings,
    pub files: Arc<Files>,
    pub cluster: Arc<Cluster>,
    pub clock: SharedClock,
    pub random: SharedRandom,
    /// Threads for pictures, and for pages that are read for their previews.
    pub pictures: Pool,
    pub remote: OnceLock<Arc<dyn RemoteMedia>>,
    pub places: Places,
    /// Lock order: a user's announced ids or a media item first, then a file's hash.
    pub locks: Locks,
    waiting: Mutex<HashMap<String, Weak<Notify>>>,
}

impl MediaStore {
    /// Opens the media folder and registers for what the pump delivers. Call it before the cluster
    /// starts, and [`MediaStore::sweep`] after.
    pub fn open(
        settings: MediaSettings,
        cluster: Arc<Cluster>,
        clock: SharedClock,
        random: SharedRandom,
        pool: Pool,
    ) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            files: Arc::new(Files::open(&settings.directory)?),
            settings,
            cluster: cluster.clone(),
            clock,
            random,
            pictures: pool.beside(PICTURES_AT_ONCE_MAX),
            remote: OnceLock::new(),
            places: Places::new(REMOTE_AT_ONCE_MAX, REMOTE_OF_SERVER_MAX),
            locks: Locks::default(),
            waiting: Mutex::default(),
        });
        cluster.register(MEDIA_OUTBOX_OP, Arc::new(Effects(inner.clone())));
        Ok(Self { inner })
    }

    /// Gives the way to other servers, once. Without it their media does not exist.
    pub fn set_remote(&self, remote: Arc<dyn RemoteMedia>) {
        if self.inner.remote.set(remote).is_err() {
            tracing::error!("the way to remote media was set twice");
        }
    }

    /// This server's name.
    pub fn server_name(&self) -> &ServerName {
        &self.inner.settings.server_name
    }

    /// The largest upload.
    pub fn max_upload_bytes(&self) -> u64 {
        self.inner.settings.max_upload_bytes
    }

    /// Whether a media item is one of this server.
    pub fn is_local(&self, media: &MediaId) -> bool {
        media.server() == self.server_name()
    }

    /// The record of an item as it is stored, also of a quarantined one; for administration.
    pub fn record(&self, media: &MediaId) -> Result<Option<MediaRecord>, Error> {
        self.inner.read(media)
    }

    /// Finds the content of an item. Waits up to `wait` for one that was announced and is not
    /// uploaded; asks the other server for its own, if `allow_remote`.
    pub async fn find(&self, media: &MediaId, wait: Duration, allow_remote: bool) -> Result<Content, Error> {
        let wait = wait.min(Duration::from_millis(MEDIA_WAIT_MAX_MS));
        if self.is_local(media) {
            return self.inner.find_local(media, wait).await;
        }
        self.inner.find_remote(media, wait, allow_remote).await
    }

    /// Reads content, or a part of it.
    pub async fn read(&self, content: &Content, range: Option<ByteRange>) -> Result<ByteStream, Error> {
        self.inner.read_file(&content.hash, range).await
    }

    /// Takes an item out of sight, or shows it again with `by` None. Returns whether it exists.
    pub async fn quarantine(&self, media: &MediaId, by: Option<&UserId>) -> Result<bool, Error> {
        let _one = self.inner.locks.lock(&media.key()).await;
        let Some(mut record) = self.inner.read(media)? else {
            return Ok(false);
        };
        record.quarantined_by = by.map(ToString::to_string);
        self.inner.commit_media(media, &record, Vec::new()).await?;
        Ok(true)
    }

    /// Deletes an item. Its file goes when nothing else uses it. Returns whether it existed.
    pub async fn delete(&self, media: &MediaId) -> Result<bool, Error> {
        let key = media.key();
        let _one = self.inner.locks.lock(&key).await;
        let Some(record) = self.inner.read(media)? else {
            return Ok(false);
        };
        let mut batch = Batch::new();
        batch.delete(Family::Media, own_key(&key));
        let mut outbox = Vec::new();
        if let State::Stored(content) = &record.state {
            let effect = Effect::RemoveReference { media: key.clone() };
            outbox.push(effect.to(&file_entity(&content.hash)));
        }
        self.inner.commit(&key, batch, outbox).await?;
        Ok(true)
    }
}

impl Inner {
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub fn read(&self, media: &MediaId) -> Result<Option<MediaRecord>, Error> {
        read(&**self.cluster.log().engine(), media)
    }

    /// Commits a batch of one entity and waits until its effects are applied too.
    pub async fn commit(&self, entity: &str, batch: Batch, outbox: Vec<OutboxRow>) -> Result<(), Error> {
        let record = Record {
            outbox,
            ..Record::of(batch)
        };
        self.cluster.commit(slot_of(entity), |_| record).await?;
        Ok(())
    }

    /// Stores an item's record.
    pub async fn commit_media(
        &self,
        media: &MediaId,
        value: &MediaRecord,
        outbox: Vec<OutboxRow>,
    ) -> Result<(), Error> {
        let key = media.key();
        let mut batch = Batch::new();
        batch.put(Family::Media, own_key(&key), record::encode(value));
        self.commit(&key, batch, outbox).await
    }

    async fn find_local(&self, media: &MediaId, wait: Duration) -> Result<Content, Error> {
        let key = media.key();
        let uploaded = self.uploaded(&key);
        let give_up = tokio::time::sleep(wait);
        tokio::pin!(give_up);
        loop {
            // Registered before the record is read, so that no upload falls between the two.
            let notified = uploaded.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let record = self.read(media)?.filter(|one| one.quarantined_by.is_none());
            let expires_ms = match record.ok_or(Error::NotFound)?.state {
                State::Stored(content) => return Ok(content),
                State::Pending { expires_ms } => expires_ms,
            };
            if expires_ms <= self.now_ms() {
                return Err(Error::NotFound);
            }
            tokio::select! {
                biased;
                () = &mut notified => {}
                () = &mut give_up => return Err(Error::NotYetUploaded),
            }
        }
    }

    /// The bell of an announced item, kept while somebody listens.
    fn uploaded(&self, key: &str) -> Arc<Notify> {
        let mut waiting = self.waiting.lock();
        if let Some(bell) = waiting.get(key).and_then(Weak::upgrade) {
            return bell;
        }
        waiting.retain(|_, bell| bell.strong_count() > 0);
        let bell = Arc::<Notify>::default();
        waiting.insert(key.to_owned(), Arc::downgrade(&bell));
        bell
    }

    /// Wakes everybody who waits for this item.
    pub fn ring(&self, key: &str) {
        if let Some(bell) = self.waiting.lock().remove(key).and_then(|bell| bell.upgrade()) {
            bell.notify_waiters();
        }
    }

    async fn find_remote(
        &self,
        media: &MediaId,
        wait: Duration,
        allow_remote: bool,
    ) -> Result<Content, Error> {
        if let Some(content) = self.stored(media)? {
            return Ok(content);
        }
        let remote = self
            .remote
            .get()
            .filter(|_| allow_remote)
            .ok_or(Error::NotFound)?;
        // One fetch at a time for an item; who waited finds it stored.
        let one = self.locks.lock(&format!("fetch {}", media.key())).await;
        if let Some(content) = self.stored(media)? {
            return Ok(content);
        }
        let place = self.places.place(media.server().as_str());
        let too_many = |_| Error::Remote("too many files of other servers are on their way".to_owned());
        let _place = tokio::time::timeout(PLACE_WAIT_MAX, place)
            .await
            .map_err(too_many)?;
        let found = remote.fetch(media, wait).await?;
        let description = Description {
            content_type: found.content_type,
            file_name: found.file_name,
        };
        let stored = self.store_remote(media, description, found.body).await;
        drop(one);
        stored
    }

    fn stored(&self, media: &MediaId) -> Result<Option<Content>, Error> {
        match self.read(media)? {
            None => Ok(None),
            Some(record) if record.quarantined_by.is_some() => Err(Error::NotFound),
            Some(MediaRecord {
                state: State::Stored(content),
                ..
            }) => Ok(Some(content)),
            Some(MediaRecord {
                state: State::Pending { .. },
                ..
            }) => Ok(None),
        }
    }

    pub async fn read_file(&self, hash: &str, range: Option<ByteRange>) -> Result<ByteStream, Error> {
        let path = self.files.content_path(hash);
        self.files.read(&path, range).await.map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                // Either it was deleted a moment ago, or somebody took the file away by hand.
                tracing::warn!(path = %path.display(), "a media file is missing");
                return Error::NotFound;
            }
            Error::Io(error)
        })
    }

    /// Runs a section that waits for the disk away from the threads that serve requests.
    pub async fn on_disk<T: Send + 'static>(
        &self,
        section: impl FnOnce(&Files) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let files = self.files.clone();
        let job = tokio::task::spawn_blocking(move || section(&files));
        let result = job.await.map_err(io::Error::other)?;
        Ok(result?)
    }

    /// The kind under which outbox rows of this crate are addressed.
    pub fn outbox_row(target: &str, payload: Vec<u8>) -> OutboxRow {
        OutboxRow {
            target_kind: KIND,
            target: target.to_owned(),
            op: MEDIA_OUTBOX_OP,
            payload,
        }
    }
}
