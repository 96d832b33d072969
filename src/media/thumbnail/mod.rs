//! Thumbnails: made when asked for, in a few normalized sizes, and kept on disk.

mod render;
mod size;

pub use size::{Method, ThumbnailRequest};

use std::{path::PathBuf, time::Duration};

use crate::{
    error::Error,
    files::ByteStream,
    id::MediaId,
    record::Content,
    store::{Inner, MediaStore},
};
use render::{Format, Rendered};

/// A thumbnail, ready to be sent.
pub struct Thumbnail {
    /// Its media type, found by looking at the picture: what the uploader claimed may be wrong.
    pub content_type: &'static str,
    /// A name for the representation, as in an `ETag`.
    pub tag: String,
    /// The length in bytes.
    pub size: u64,
    /// The bytes.
    pub body: ByteStream,
}

impl MediaStore {
    /// A thumbnail of an item. The original is given where it is not larger than what was asked for.
    pub async fn thumbnail(
        &self,
        media: &MediaId,
        request: ThumbnailRequest,
        wait: Duration,
        allow_remote: bool,
    ) -> Result<Thumbnail, Error> {
        if request.width == 0 || request.height == 0 {
            return Err(Error::Invalid("Width and height must be positive"));
        }
        let content = self.find(media, wait, allow_remote).await?;
        let made = self.inner.thumbnail(&content, request).await;
        made.map_err(|error| match error {
            Error::ImageTooLarge if !self.is_local(media) => Error::RemoteImageTooLarge,
            error => error,
        })
    }
}

impl Inner {
    async fn thumbnail(&self, content: &Content, request: ThumbnailRequest) -> Result<Thumbnail, Error> {
        let target = request.normalized();
        let name = format!("{}-{}", content.hash, target.name());
        if let Some(found) = self.cached(content, &name).await? {
            return Ok(found);
        }
        // One rendering at a time for a name; who waited finds it on disk.
        let _one = self.locks.lock(&name).await;
        if let Some(found) = self.cached(content, &name).await? {
            return Ok(found);
        }
        let (source, files, random) = (
            self.files.content_path(&content.hash),
            self.files.clone(),
            self.random.clone(),
        );
        let folder = self.files.thumbnail_folder(&content.hash);
        let base = name.clone();
        let section = move || {
            let rendered = render::render(&source, target)?;
            if let Rendered::New(format, bytes) = &rendered {
                let path = folder.join(format!("{base}.{}", format.extension()));
                // A full disk costs only time: the picture is made anew on the next request.
                if let Err(error) = files.write_thumbnail(&path, bytes, &*random) {
                    tracing::warn!(%error, "cannot keep a thumbnail");
                }
            }
            Ok::<_, Error>(rendered)
        };
        match self.pictures.run(section).await? {
            Rendered::Original(format) => Ok(Thumbnail {
                content_type: format.content_type(),
                tag: content.hash.clone(),
                size: content.size,
                body: self.read_file(&content.hash, None).await?,
            }),
            Rendered::New(format, bytes) => {
                let size = bytes.len() as u64;
                let bytes = futures::stream::once(async { Ok(bytes::Bytes::from(bytes)) });
                Ok(Thumbnail {
                    content_type: format.content_type(),
                    tag: name,
                    size,
                    body: Box::pin(bytes),
                })
            }
        }
    }

    async fn cached(&self, content: &Content, name: &str) -> Result<Option<Thumbnail>, Error> {
        for format in [Format::Jpeg, Format::Png] {
            let path: PathBuf = self
                .files
                .thumbnail_folder(&content.hash)
                .join(format!("{name}.{}", format.extension()));
            let Ok(there) = tokio::fs::metadata(&path).await else {
                continue;
            };
            // It can go between the two calls; then it is made anew.
            let Ok(body) = self.files.read(&path, None).await else {
                continue;
            };
            return Ok(Some(Thumbnail {
                content_type: format.content_type(),
                tag: name.to_owned(),
                size: there.len(),
                body,
            }));
        }
        Ok(None)
    }
}
