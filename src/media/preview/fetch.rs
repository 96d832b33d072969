//! Fetching a page or a picture: a few hops, each checked, each limited.

use std::time::Duration;

use bytes::Bytes;
use hearth_core::http::{Destination, OutboundRequest, SharedOutbound, TransportError};
use http::{HeaderMap, HeaderValue, Method, header};
use url::Url;

use super::policy::Policy;
use crate::error::Error;

/// How often one page may send us on: from http to https, to a longer name, to the page itself, and one to spare.
const REDIRECTS_MAX: usize = 4;
/// The time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What was found at the end of the redirects.
pub(super) struct Fetched {
    /// Where it was found.
    pub url: Url,
    /// What the server says it is.
    pub content_type: Option<String>,
    /// All of it.
    pub body: Bytes,
}

impl Fetched {
    /// Whether it is a page.
    pub fn is_page(&self) -> bool {
        matches!(self.media_type().as_str(), "text/html" | "application/xhtml+xml")
    }

    /// Whether it says that it is a picture.
    pub fn is_picture(&self) -> bool {
        self.media_type().starts_with("image/")
    }

    fn media_type(&self) -> String {
        let whole = self.content_type.as_deref().unwrap_or_default();
        whole
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    }
}

/// Asks web servers, within the policy.
pub(super) struct Fetcher {
    outbound: SharedOutbound,
    policy: Policy,
}

impl Fetcher {
    pub fn new(outbound: SharedOutbound, policy: Policy) -> Self {
        Self { outbound, policy }
    }

    /// Refuses a URL that the policy keeps from us.
    pub fn check(&self, url: &Url) -> Result<(), Error> {
        self.policy.check(url)
    }

    /// Gets what is at a URL, following redirects. Each hop meets the policy here and the transport's look at addresses
    /// there.
    pub async fn get(&self, mut url: Url, accept: &'static str, max_bytes: usize) -> Result<Fetched, Error> {
        for _ in 0..=REDIRECTS_MAX {
            self.check(&url)?;
            let response = self.outbound.send(request(&url, accept, max_bytes)).await;
            let response = response.map_err(|error| failure(&error))?;
            let text = |name| response.headers.get(name).and_then(|value| value.to_str().ok());
            if response.status.is_redirection() {
                let location = text(header::LOCATION).ok_or(Error::Page("it sends us nowhere"))?;
                url = url
                    .join(location)
                    .map_err(|_| Error::Page("it sends us to no URL"))?;
                continue;
            }
            if !response.status.is_success() {
                return Err(Error::Page("its server has no such page"));
            }
            return Ok(Fetched {
                content_type: text(header::CONTENT_TYPE).map(str::to_owned),
                url,
                body: response.body,
            });
        }
        Err(Error::Page("it sends us around too often"))
    }
}

fn request(url: &Url, accept: &'static str, max_bytes: usize) -> OutboundRequest {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    OutboundRequest {
        destination: Destination::Url(url.origin().ascii_serialization()),
        method: Method::GET,
        path_and_query: format!("{}{query}", url.path()),
        headers,
        body: Bytes::new(),
        timeout: ANSWER_TIMEOUT,
        max_response_bytes: max_bytes,
    }
}

/// Says no more than a browser would: the cause could tell what there is in the operator's network.
fn failure(error: &TransportError) -> Error {
    tracing::debug!(%error, "a page could not be fetched for a preview");
    match error {
        TransportError::Refused(_) => Error::NotAllowed("This server makes no previews of that address"),
        TransportError::TooLarge => Error::Page("it is too large"),
        TransportError::Timeout | TransportError::Unreachable(_) => {
            Error::Page("its server cannot be reached")
        }
    }
}
