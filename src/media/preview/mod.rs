//! Previews of web pages (Client-Server API, `GET /media/preview_url`): what a page says of itself, and its picture
//! kept as media of this server.
//!
//! The pages are a stranger's choice, so everything about them is limited: which hosts may be asked (`policy`), how
//! often they may send us on, how long and how large an answer may be (`fetch`), and how much of it is told
//! (`page`). That no private address is reached is the transport's business, which sees the addresses.

mod fetch;
mod page;
mod picture;
mod policy;

use std::sync::Arc;
use std::time::Duration;

use hearth_core::http::SharedOutbound;
use quick_cache::Weighter;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use url::Url;

use crate::{error::Error, locks::Locks, store::MediaStore};
use fetch::{Fetched, Fetcher};
use page::Page;
pub use policy::Policy;

/// The longest URL that is previewed, in bytes: what browsers and servers agree on.
const URL_MAX_BYTES: usize = 4_096;
/// The largest page, in bytes. What it says of itself is at its beginning, but some have all their scripts before.
const PAGE_MAX_BYTES: usize = 4 << 20;
/// The largest picture, in bytes.
const PICTURE_MAX_BYTES: usize = 10 << 20;
/// The time for page and picture, with all redirects.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a page that could not be read is not asked again, in milliseconds.
const FAILURE_KEPT_MS: u64 = 60_000;
/// How many pages are read at once: each may take as much memory as its picture is large.
const FETCHES_MAX: usize = 8;
/// What one cached preview is taken to weigh at least, in bytes.
const ENTRY_BYTES: u64 = 512;

/// What previews take from the configuration.
#[derive(Clone, Debug)]
pub struct PreviewSettings {
    /// Which hosts may be asked.
    pub policy: Policy,
    /// How long a preview is kept, in milliseconds.
    pub kept_ms: u64,
    /// Memory for kept previews, in bytes.
    pub cache_bytes: u64,
}

/// The members of a preview by name: those of the page's Open Graph, and `matrix:image:size`.
pub type Preview = Map<String, Value>;

/// A preview, or that there is none, until a time.
#[derive(Clone)]
struct Kept {
    expires_ms: u64,
    preview: Option<Arc<Preview>>,
    bytes: u64,
}

#[derive(Clone)]
struct KeptWeight;

impl Weighter<String, Kept> for KeptWeight {
    fn weight(&self, url: &String, kept: &Kept) -> u64 {
        ENTRY_BYTES + url.len() as u64 + kept.bytes
    }
}

/// Makes previews and keeps them for a while.
pub struct Previews {
    store: MediaStore,
    fetcher: Fetcher,
    kept_ms: u64,
    kept: quick_cache::sync::Cache<String, Kept, KeptWeight>,
    /// One look at a page at a time; who waited finds it kept.
    looking: Locks,
    places: Semaphore,
}

impl Previews {
    /// `outbound` must reach no address that a stranger may not choose.
    pub fn new(store: MediaStore, outbound: SharedOutbound, settings: PreviewSettings) -> Self {
        let entries = (settings.cache_bytes / (4 * ENTRY_BYTES)).max(1);
        Self {
            store,
            fetcher: Fetcher::new(outbound, settings.policy),
            kept_ms: settings.kept_ms,
            kept: quick_cache::sync::Cache::with_weighter(
                usize::try_from(entries).unwrap_or(usize::MAX),
                settings.cache_bytes,
                KeptWeight,
            ),
            looking: Locks::default(),
            places: Semaphore::new(FETCHES_MAX),
        }
    }

    /// The preview of a page. One that is neither a page nor a picture has an empty preview.
    pub async fn preview(&self, url: &str) -> Result<Arc<Preview>, Error> {
        if url.len() > URL_MAX_BYTES {
            return Err(Error::Invalid("The URL is too long"));
        }
        let mut url = Url::parse(url).map_err(|_| Error::Invalid("This is no URL"))?;
        url.set_fragment(None);
        self.fetcher.check(&url)?;
        if let Some(kept) = self.find(&url) {
            return kept;
        }
        let _one = self.looking.lock(url.as_str()).await;
        if let Some(kept) = self.find(&url) {
            return kept;
        }
        let outcome = {
            let _place = self.places.acquire().await;
            match tokio::time::timeout(TOTAL_TIMEOUT, self.look(&url)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Error::Page("it did not answer in time")),
            }
        };
        if let Err(Error::Storage(_) | Error::Io(_) | Error::NotAllowed(_)) = outcome {
            // That is ours, and says nothing of the page.
            return outcome.map(Arc::new);
        }
        let now_ms = self.store.inner.now_ms();
        let preview = outcome.map(Arc::new);
        let kept = Kept {
            expires_ms: now_ms
                + if preview.is_ok() {
                    self.kept_ms
                } else {
                    FAILURE_KEPT_MS
                },
            bytes: preview.as_ref().map_or(0, |preview| weight(preview)),
            preview: preview.as_ref().ok().cloned(),
        };
        self.kept.insert(url.into(), kept);
        preview
    }

    fn find(&self, url: &Url) -> Option<Result<Arc<Preview>, Error>> {
        let kept = self.kept.get(url.as_str())?;
        if kept.expires_ms <= self.store.inner.now_ms() {
            return None;
        }
        Some(
            kept.preview
                .ok_or(Error::Page("it could not be read a moment ago")),
        )
    }

    async fn look(&self, url: &Url) -> Result<Preview, Error> {
        let fetched = self.fetcher.get(
            url.clone(),
            "text/html,application/xhtml+xml,image/*;q=0.8",
            PAGE_MAX_BYTES,
        );
        let fetched = fetched.await?;
        if fetched.is_picture() {
            return self.preview_of_picture(fetched).await;
        }
        if !fetched.is_page() {
            return Ok(Preview::new());
        }
        let at = fetched.url.clone();
        let read = move || Ok::<_, Error>(page::read(fetched.content_type.as_deref(), &fetched.body));
        let Page { mut members, picture } = self.store.inner.pictures.run(read).await?;
        if let Some(picture) = picture {
            match self.keep_picture_at(&at, &picture).await {
                Ok(kept) => members.extend(kept),
                Err(error @ (Error::Storage(_) | Error::Io(_))) => return Err(error),
                // A page without its picture is still worth a preview.
                Err(error) => tracing::debug!(%error, "the picture of a page could not be had"),
            }
        }
        Ok(members)
    }

    async fn preview_of_picture(&self, fetched: Fetched) -> Result<Preview, Error> {
        let name = fetched
            .url
            .path_segments()
            .and_then(|mut segments| segments.next_back());
        let title = name.filter(|name| !name.is_empty()).map(str::to_owned);
        let mut members = picture::keep(&self.store, fetched.body).await?;
        if let Some(title) = title {
            members.insert("og:title".to_owned(), json!(title));
        }
        Ok(members)
    }

    async fn keep_picture_at(&self, page: &Url, picture: &str) -> Result<Preview, Error> {
        let url = page
            .join(picture)
            .map_err(|_| Error::Page("its picture has no URL"))?;
        let fetched = self.fetcher.get(url, "image/*", PICTURE_MAX_BYTES).await?;
        picture::keep(&self.store, fetched.body).await
    }
}

fn weight(preview: &Preview) -> u64 {
    let text = |value: &Value| value.as_str().map_or(8, str::len);
    preview
        .iter()
        .map(|(name, value)| (name.len() + text(value) + 32) as u64)
        .sum()
}

#[cfg(test)]
mod tests;
