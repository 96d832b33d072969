//! Keeping the picture of a page as media of this server.

use std::io::Cursor;

use bytes::Bytes;
use image::ImageReader;
use serde_json::json;

use super::Preview;
use crate::{
    error::Error,
    id::MediaId,
    record::{MediaRecord, State, file_entity, members},
    store::MediaStore,
    upload::Description,
};

/// How many users of a file are looked at to find a kept picture with the same bytes.
const USERS_LOOKED_AT_MAX: usize = 100;

/// What is seen at a picture's beginning.
struct Look {
    content_type: &'static str,
    width: u32,
    height: u32,
}

/// Keeps a picture, and gives what a preview says of it. What is no picture that we can read is not kept: it could be
/// a page that a browser runs.
pub(super) async fn keep(store: &MediaStore, bytes: Bytes) -> Result<Preview, Error> {
    let section_bytes = bytes.clone();
    let look = store.inner.pictures.run(move || look(&section_bytes)).await;
    let look = look.ok_or(Error::Page("its picture is none that can be read"))?;
    let size = bytes.len();
    let media = store.keep_of_page(look.content_type, bytes).await?;
    let mut members = Preview::new();
    members.insert("og:image".to_owned(), json!(media.uri()));
    members.insert("og:image:type".to_owned(), json!(look.content_type));
    members.insert("og:image:width".to_owned(), json!(look.width));
    members.insert("og:image:height".to_owned(), json!(look.height));
    members.insert("matrix:image:size".to_owned(), json!(size));
    Ok(members)
}

fn look(bytes: &[u8]) -> Option<Look> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    let content_type = reader.format()?.to_mime_type();
    let (width, height) = reader.into_dimensions().ok()?;
    Some(Look {
        content_type,
        width,
        height,
    })
}

impl MediaStore {
    /// Stores a picture that nobody uploaded. The same bytes get the same id, so that looking at a page again and again
    /// leaves one item; one that was taken out of sight stays so.
    async fn keep_of_page(&self, content_type: &str, bytes: Bytes) -> Result<MediaId, Error> {
        let inner = &self.inner;
        let body = futures::stream::once(async move { Ok(bytes) });
        let finished = inner.receive(Box::pin(body)).await?;
        let _one = inner.locks.lock(&format!("picture {}", finished.hash)).await;
        let engine = inner.cluster.log().engine();
        for (key, _) in members(&**engine, &file_entity(&finished.hash), USERS_LOOKED_AT_MAX)? {
            let Some(media) = MediaId::from_key(&key).filter(|media| self.is_local(media)) else {
                continue;
            };
            match inner.read(&media)? {
                Some(MediaRecord {
                    uploader: None,
                    state: State::Stored(_),
                    quarantined_by,
                    ..
                }) if quarantined_by.is_none() => return Ok(media),
                Some(MediaRecord { uploader: None, .. }) => return Err(Error::NotFound),
                _ => {}
            }
        }
        let media = self.new_id()?;
        let description = Description {
            content_type: Some(content_type.to_owned()),
            file_name: None,
        };
        inner.store(&media, None, description, finished).await?;
        Ok(media)
    }
}
