//! Uploads: at once, or to an id that was announced before.

use futures::StreamExt;
use hearth_core::{
    limits::{MEDIA_PENDING_LIFETIME, MEDIA_PENDING_PER_USER_MAX},
    random::alphanumeric,
};
use hearth_storage::{Batch, Family, record};
use ruma::UserId;

use crate::{
    effects::Effect,
    error::Error,
    files::{ByteStream, Files, Finished},
    id::MediaId,
    record::{Content, MediaRecord, PendingRow, State, file_entity, member_key, members, pending_entity},
    store::{Inner, MediaStore},
};

/// The length of a media id, in characters: 190 bits, so that ids cannot be guessed.
const MEDIA_ID_CHARACTERS: usize = 32;

/// The longest media type and file name that are kept, in bytes: far above what file systems allow.
const DESCRIPTION_MAX_BYTES: usize = 1024;

/// What a media type is called when nobody said.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// What the uploader says about a file.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Its media type.
    pub content_type: Option<String>,
    /// Its name.
    pub file_name: Option<String>,
}

impl Description {
    /// Checks what came from a client.
    fn check(&self) -> Result<(), Error> {
        let too_long = |text: &Option<String>| {
            text.as_ref()
                .is_some_and(|text| text.len() > DESCRIPTION_MAX_BYTES)
        };
        if too_long(&self.content_type) {
            return Err(Error::Invalid("The content type is too long"));
        }
        if too_long(&self.file_name) {
            return Err(Error::Invalid("The file name is too long"));
        }
        Ok(())
    }

    /// What is stored; a type that could not stand in a header counts as unknown.
    fn content(self, finished: &Finished) -> Content {
        let sendable =
            |text: &String| !text.trim().is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        Content {
            hash: finished.hash.clone(),
            size: finished.size,
            content_type: self
                .content_type
                .filter(sendable)
                .unwrap_or_else(|| UNKNOWN_TYPE.into()),
            file_name: self.file_name.filter(|name| !name.is_empty()),
        }
    }
}

impl MediaStore {
    /// Stores an upload under a new id.
    pub async fn upload(
        &self,
        uploader: &UserId,
        description: Description,
        body: ByteStream,
    ) -> Result<MediaId, Error> {
        description.check()?;
        let media = self.new_id()?;
        let finished = self.inner.receive(body).await?;
        self.inner
            .store(&media, Some(uploader), description, finished)
            .await?;
        Ok(media)
    }

    /// Announces a new id for a user: gives it and when it expires, in milliseconds since 1970.
    pub async fn create(&self, uploader: &UserId) -> Result<(MediaId, u64), Error> {
        let inner = &self.inner;
        let user = pending_entity(uploader.as_str());
        let _one = inner.locks.lock(&user).await;
        let now_ms = inner.now_ms();
        let mut batch = Batch::new();
        let mut outbox = Vec::new();
        let mut waiting = Vec::new();
        let engine = inner.cluster.log().engine();
        // Rows can outnumber the limit only if the limit was lowered.
        for (id, value) in members(&**engine, &user, 2 * MEDIA_PENDING_PER_USER_MAX)? {
            let PendingRow { expires_ms } = record::decode(&value)?;
            if expires_ms > now_ms {
                waiting.push(expires_ms);
                continue;
            }
            batch.delete(Family::Media, member_key(&user, &id));
            if let Some(expired) = MediaId::new(self.server_name().as_str(), &id) {
                outbox.push(Effect::Expire.to(&expired.key()));
            }
        }
        if waiting.len() >= MEDIA_PENDING_PER_USER_MAX {
            let first_ms = waiting.into_iter().min().unwrap_or(now_ms);
            return Err(Error::PendingLimit {
                retry_after_ms: first_ms - now_ms,
            });
        }
        let media = self.new_id()?;
        let expires_ms = now_ms + MEDIA_PENDING_LIFETIME.as_millis() as u64;
        batch.put(
            Family::Media,
            member_key(&user, media.id()),
            record::encode(&PendingRow { expires_ms }),
        );
        let announce = Effect::Announce {
            uploader: uploader.to_string(),
            created_ms: now_ms,
            expires_ms,
        };
        outbox.push(announce.to(&media.key()));
        inner.commit(&user, batch, outbox).await?;
        Ok((media, expires_ms))
    }

    /// Stores an upload under an announced id, once.
    pub async fn upload_to(
        &self,
        uploader: &UserId,
        media: &MediaId,
        description: Description,
        body: ByteStream,
    ) -> Result<(), Error> {
        description.check()?;
        if !self.is_local(media) {
            return Err(Error::NotFound);
        }
        // Asked before the bytes are taken, so that a useless upload ends early, and again after.
        self.inner.check_announced(uploader, media)?;
        let finished = self.inner.receive(body).await?;
        let one = self.inner.locks.lock(&media.key()).await;
        self.inner.check_announced(uploader, media)?;
        self.inner
            .store(media, Some(uploader), description, finished)
            .await?;
        drop(one);
        self.inner.ring(&media.key());
        Ok(())
    }

    pub(crate) fn new_id(&self) -> Result<MediaId, Error> {
        let id = alphanumeric(&*self.inner.random, MEDIA_ID_CHARACTERS);
        MediaId::new(self.server_name().as_str(), &id)
            .ok_or(Error::Invalid("The server's name makes no media id"))
    }
}

impl Inner {
    fn check_announced(&self, uploader: &UserId, media: &MediaId) -> Result<(), Error> {
        let record = self.read(media)?.ok_or(Error::NotFound)?;
        if record.uploader.as_deref() != Some(uploader.as_str()) {
            return Err(Error::NotOwner);
        }
        match record.state {
            State::Stored(_) => Err(Error::AlreadyUploaded),
            State::Pending { expires_ms } if expires_ms <= self.now_ms() => Err(Error::NotFound),
            State::Pending { .. } => Ok(()),
        }
    }

    /// Takes a body to disk, up to the limit.
    pub(crate) async fn receive(&self, mut body: ByteStream) -> Result<Finished, Error> {
        let limit_bytes = self.settings.max_upload_bytes;
        self.cluster.log().check_writable()?;
        let mut incoming = self.files.begin(&*self.random).await?;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|_| Error::Interrupted)?;
            if incoming.size() + piece.len() as u64 > limit_bytes {
                return Err(Error::TooLarge { limit_bytes });
            }
            incoming.write(&piece).await?;
        }
        Ok(incoming.finish().await?)
    }

    /// Keeps a file of another server.
    pub async fn store_remote(
        &self,
        media: &MediaId,
        description: Description,
        body: ByteStream,
    ) -> Result<Content, Error> {
        let finished = match self.receive(body).await {
            Err(Error::TooLarge { limit_bytes }) => Err(Error::RemoteTooLarge { limit_bytes }),
            Err(Error::Interrupted) => Err(Error::Remote("the connection broke".into())),
            other => other,
        }?;
        // Another server's odd description is no reason to refuse its file.
        let description = if description.check().is_ok() {
            description
        } else {
            Description::default()
        };
        self.store(media, None, description, finished).await
    }

    /// File first, then the record: note, place, commit, and the note goes. On a failure the note
    /// stays, and the next start finds the file that has no record.
    pub(crate) async fn store(
        &self,
        media: &MediaId,
        uploader: Option<&UserId>,
        description: Description,
        finished: Finished,
    ) -> Result<Content, Error> {
        let key = media.key();
        let content = description.content(&finished);
        // Held until the reference is in place, so that nobody removes the file between.
        let _file = self.locks.lock(&content.hash).await;
        let (hash, noted, random) = (content.hash.clone(), key.clone(), self.random.clone());
        let place = move |files: &Files| {
            let note = files.write_note(&hash, &noted, &*random)?;
            files.place(finished)?;
            Ok(note)
        };
        let note = self.on_disk(place).await?;
        let value = MediaRecord {
            uploader: uploader.map(ToString::to_string),
            created_ms: self.now_ms(),
            state: State::Stored(content.clone()),
            quarantined_by: None,
        };
        let mut outbox = vec![Effect::AddReference { media: key.clone() }.to(&file_entity(&content.hash))];
        if let Some(MediaRecord {
            state: State::Pending { .. },
            uploader: Some(user),
            ..
        }) = self.read(media)?
        {
            let arrived = Effect::Arrived {
                media_id: media.id().to_owned(),
            };
            outbox.push(arrived.to(&pending_entity(&user)));
        }
        self.commit_media(media, &value, outbox).await?;
        self.files.remove_note(&note);
        Ok(content)
    }
}
