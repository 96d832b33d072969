//! What the media endpoints share: parameters, bodies as streams, and the headers that keep a file
//! from doing harm in a browser.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt, stream};
use hearth_core::error::MatrixError;
use hearth_core::limits::BODY_READ_TIMEOUT;
use hearth_media::{
    ByteStream, Content, Description, Disposition, MediaId, Method, RangeOutcome, ThumbnailRequest,
    content_disposition, disposition_for, parse_range,
};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use crate::app::App;
use crate::error::{ApiError, Result};

/// How long a download waits for content that was announced, unless the client says otherwise, in
/// milliseconds; set by the specification.
const DEFAULT_WAIT_MS: u64 = 20_000;

/// Content runs no scripts and loads nothing, also when a browser opens it as a page; the
/// specification's words.
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; \
                      plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';";

/// Media never changes, so clients may keep it; a day, so that what is taken down also fades there.
const CACHING: &str = "private, max-age=86400, immutable";

/// The parameters of an upload.
#[derive(Debug, Deserialize)]
pub struct UploadQuery {
    filename: Option<String>,
}

/// The parameters of a download. `allow_redirect` is not read: we never redirect.
#[derive(Debug, Deserialize)]
pub struct DownloadQuery {
    timeout_ms: Option<u64>,
    allow_remote: Option<bool>,
}

/// The parameters of a thumbnail.
#[derive(Debug, Deserialize)]
pub struct ThumbnailQuery {
    width: u32,
    height: u32,
    #[serde(default)]
    method: ThumbnailMethod,
    animated: Option<bool>,
    /// How long to wait for content that was announced.
    pub timeout_ms: Option<u64>,
    allow_remote: Option<bool>,
}

impl ThumbnailQuery {
    /// What is asked of the store.
    pub fn request(&self) -> ThumbnailRequest {
        ThumbnailRequest {
            width: self.width,
            height: self.height,
            method: match self.method {
                ThumbnailMethod::Crop => Method::Crop,
                ThumbnailMethod::Scale => Method::Scale,
            },
            animated: self.animated.unwrap_or(false),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ThumbnailMethod {
    Crop,
    #[default]
    Scale,
}

/// The media item of a path. What is no media id does not exist.
pub fn media_id(server: &str, id: &str) -> Result<MediaId, MatrixError> {
    MediaId::new(server, id).ok_or_else(|| MatrixError::not_found("There is no such media"))
}

/// Refuses an upload that says itself that it is too large, before any byte of it is read.
pub fn check_length(app: &App, headers: &HeaderMap) -> Result<(), MatrixError> {
    let limit = app.media.max_upload_bytes();
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(MatrixError::too_large(format!(
            "The upload is larger than {limit} bytes"
        )));
    }
    Ok(())
}

/// What the client says about an upload.
pub fn description(query: UploadQuery, headers: &HeaderMap) -> Description {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    Description {
        content_type: content_type.map(str::to_owned),
        file_name: query.filename,
    }
}

/// A body in pieces, as the store takes it. It ends with an error where the next piece does not come.
pub fn stream_of(body: Body) -> ByteStream {
    let pieces = body.into_data_stream().map_err(io::Error::other).boxed();
    stream::unfold(Some(pieces), |pieces| async {
        let mut pieces = pieces?;
        match tokio::time::timeout(BODY_READ_TIMEOUT, pieces.next()).await {
            Ok(piece) => piece.map(|piece| (piece, Some(pieces))),
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    })
    .boxed()
}

/// Answers with a file, or the part of it that the client wants.
pub async fn download(
    app: &App,
    headers: &HeaderMap,
    (server, id): (&str, &str),
    query: DownloadQuery,
    name: Option<&str>,
) -> Result<Response> {
    let media = media_id(server, id)?;
    let wait = Duration::from_millis(query.timeout_ms.unwrap_or(DEFAULT_WAIT_MS));
    let content = app
        .media
        .find(&media, wait, query.allow_remote.unwrap_or(true))
        .await?;
    answer_content(app, headers, &content, name).await
}

async fn answer_content(
    app: &App,
    headers: &HeaderMap,
    content: &Content,
    name: Option<&str>,
) -> Result<Response> {
    let tag = format!("\"{}\"", content.hash);
    let disposition = disposition_for(&content.content_type);
    let disposition = content_disposition(disposition, name.or(content.file_name.as_deref()));
    let mut answer = Answer::new(&content.content_type, &disposition, &tag)?;
    answer.0.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if is_known(headers, &tag) {
        return Ok(answer.empty(StatusCode::NOT_MODIFIED));
    }
    // A client that continues an older representation of the file wants all of the new one.
    let continues = headers
        .get(IF_RANGE)
        .is_none_or(|value| value.as_bytes() == tag.as_bytes());
    let range = headers
        .get(RANGE)
        .filter(|_| continues)
        .and_then(|value| value.to_str().ok());
    match parse_range(range, content.size) {
        RangeOutcome::Whole => {
            let body = app.media.read(content, None).await?;
            Ok(answer.body(StatusCode::OK, content.size, body))
        }
        RangeOutcome::Part(part) => {
            let body = app.media.read(content, Some(part)).await?;
            let range = format!("bytes {}-{}/{}", part.first, part.last, content.size);
            answer.insert(CONTENT_RANGE, &range)?;
            Ok(answer.body(StatusCode::PARTIAL_CONTENT, part.length(), body))
        }
        RangeOutcome::Unsatisfiable => {
            let sentence = "The file has no such part";
            let error = MatrixError::new(416, "M_INVALID_PARAM", sentence);
            let mut response = ApiError::from(error).into_response();
            let range = HeaderValue::try_from(format!("bytes */{}", content.size));
            response
                .headers_mut()
                .insert(CONTENT_RANGE, range.map_err(|error| ApiError::internal(&error))?);
            Ok(response)
        }
    }
}

/// Answers with a thumbnail.
pub async fn thumbnail(
    app: &App,
    headers: &HeaderMap,
    (server, id): (&str, &str),
    query: ThumbnailQuery,
) -> Result<Response> {
    let media = media_id(server, id)?;
    let request = query.request();
    let wait = Duration::from_millis(query.timeout_ms.unwrap_or(DEFAULT_WAIT_MS));
    let allow_remote = query.allow_remote.unwrap_or(true);
    let found = app.media.thumbnail(&media, request, wait, allow_remote).await?;
    let tag = format!("\"{}\"", found.tag);
    let extension = found.content_type.trim_start_matches("image/");
    let name = format!("thumbnail.{extension}");
    let disposition = content_disposition(Disposition::Inline, Some(&name));
    let answer = Answer::new(found.content_type, &disposition, &tag)?;
    if is_known(headers, &tag) {
        return Ok(answer.empty(StatusCode::NOT_MODIFIED));
    }
    Ok(answer.body(StatusCode::OK, found.size, found.body))
}

/// Whether the client has this representation already.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    known.is_some_and(|known| {
        known.split(',').any(|one| {
            let one = one.trim();
            one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
        })
    })
}

/// The headers of an answer with content.
struct Answer(HeaderMap);

impl Answer {
    fn new(content_type: &str, disposition: &str, tag: &str) -> Result<Self> {
        let mut answer = Self(HeaderMap::new());
        answer.insert(CONTENT_TYPE, content_type)?;
        answer.insert(CONTENT_DISPOSITION, disposition)?;
        answer.insert(ETAG, tag)?;
        let policy = HeaderName::from_static("cross-origin-resource-policy");
        for (name, value) in [
            (CACHE_CONTROL, CACHING),
            (CONTENT_SECURITY_POLICY, POLICY),
            (policy, "cross-origin"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            answer.0.insert(name, HeaderValue::from_static(value));
        }
        Ok(answer)
    }

    fn insert(&mut self, name: HeaderName, value: &str) -> Result<()> {
        // The store keeps only types that can stand in a header, and the rest is made here.
        let value = HeaderValue::try_from(value).map_err(|error| ApiError::internal(&error))?;
        self.0.insert(name, value);
        Ok(())
    }

    fn empty(self, status: StatusCode) -> Response {
        (status, self.0).into_response()
    }

    fn body(mut self, status: StatusCode, length: u64, body: ByteStream) -> Response {
        self.0.insert(CONTENT_LENGTH, HeaderValue::from(length));
        (status, self.0, Body::from_stream(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_representations() {
        for (header, known) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(header));
            assert_eq!(is_known(&headers, "\"a\""), known, "{header}");
        }
        assert!(!is_known(&HeaderMap::new(), "\"a\""));
    }

    #[test]
    fn content_is_harmless() {
        let answer = Answer::new("text/html", "attachment", "\"a\"").expect("good headers");
        assert_eq!(answer.0["x-content-type-options"], "nosniff");
        assert!(
            answer.0[CONTENT_SECURITY_POLICY]
                .to_str()
                .is_ok_and(|text| text.starts_with("sandbox;"))
        );
        assert_eq!(answer.0["cross-origin-resource-policy"], "cross-origin");
        assert!(Answer::new("text/html\r\nx: y", "attachment", "\"a\"").is_err());
    }
}
