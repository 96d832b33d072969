//! Media of this server, for other servers.

pub mod get_download;
pub mod get_thumbnail;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::{StreamExt, stream};
use hearth_core::random::alphanumeric;
use hearth_media::{ByteStream, MediaId};
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::V1;
use crate::app::App;
use crate::client::media::serve::media_id;
use crate::error::{ApiError, Result};
use crate::routes::Routes;

/// How long a download waits for content that was announced, unless the server says otherwise, in milliseconds; set by
/// the specification.
const DEFAULT_WAIT_MS: u64 = 20_000;

/// Random letters and digits of a boundary: none of a file's bytes can be made to look like it.
const BOUNDARY_CHARS: usize = 32;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .at(
            &format!("{V1}/media/download/{{mediaId}}"),
            get(get_download::get_download),
        )
        .at(
            &format!("{V1}/media/thumbnail/{{mediaId}}"),
            get(get_thumbnail::get_thumbnail),
        )
}

fn local_id(app: &App, id: &str) -> Result<MediaId> {
    Ok(media_id(app.server_name.as_str(), id)?)
}

fn wait(timeout_ms: Option<u64>) -> Duration {
    Duration::from_millis(timeout_ms.unwrap_or(DEFAULT_WAIT_MS))
}

/// A file in the form that servers give each other: `multipart/mixed` of an empty object and the file.
fn multipart(app: &Arc<App>, content_type: &str, disposition: &str, body: ByteStream) -> Result<Response> {
    // The store keeps only what can stand in a header; a line end here would let a file write headers.
    for value in [content_type, disposition] {
        HeaderValue::try_from(value).map_err(|error| ApiError::internal(&error))?;
    }
    let boundary = alphanumeric(app.random.as_ref(), BOUNDARY_CHARS);
    let (head, tail) = frame(&boundary, content_type, disposition);
    let whole = stream::iter([Ok(head)])
        .chain(body)
        .chain(stream::iter([Ok(tail)]));
    let header = HeaderValue::try_from(format!("multipart/mixed; boundary={boundary}"));
    let header = header.map_err(|error| ApiError::internal(&error))?;
    Ok(([(CONTENT_TYPE, header)], Body::from_stream(whole)).into_response())
}

/// What stands before and behind the file.
fn frame(boundary: &str, content_type: &str, disposition: &str) -> (Bytes, Bytes) {
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n\
         --{boundary}\r\nContent-Type: {content_type}\r\nContent-Disposition: {disposition}\r\n\r\n"
    );
    (head.into(), format!("\r\n--{boundary}--\r\n").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_of_a_file() {
        let (head, tail) = frame("b", "image/png", "inline");
        let whole = [&*head, b"bytes", &*tail].concat();
        assert_eq!(
            String::from_utf8(whole).expect("text"),
            "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n\
             --b\r\nContent-Type: image/png\r\nContent-Disposition: inline\r\n\r\nbytes\r\n--b--\r\n"
        );
    }
}
