//! Request bodies.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hearth_core::error::{MatrixError, errcode};
use hearth_core::limits::{BODY_READ_TIMEOUT, JSON_MAX_DEPTH};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::error::Category;

use crate::app::App;
use crate::error::ApiError;

/// A JSON object as body, or as answer. A request without a body is refused.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// As [`Json`], but a missing body counts as `{}`; for endpoints where all fields are optional.
#[derive(Clone, Copy, Debug)]
pub struct OptionalJson<T>(pub T);

/// A body that is a JSON object, checked but not read: for event contents, which are kept as sent.
#[derive(Clone, Debug)]
pub struct RawJson(pub Bytes);

/// As [`RawJson`], but the body may be missing: for endpoints that answer a repeated request without it.
#[derive(Clone, Debug)]
pub struct OptionalRawJson(Option<Bytes>);

impl OptionalRawJson {
    /// The body; M_NOT_JSON where there is none.
    pub fn required(self) -> Result<Bytes, MatrixError> {
        self.0
            .ok_or_else(|| MatrixError::not_json("The body is empty, but must be a JSON object"))
    }

    /// The body, if there is one.
    pub fn into_option(self) -> Option<Bytes> {
        self.0
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let bytes = body_bytes(request.into_body(), app.max_request_bytes()).await?;
        read_object(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let bytes = body_bytes(request.into_body(), app.max_request_bytes()).await?;
        let bytes = if bytes.is_empty() {
            Bytes::from_static(b"{}")
        } else {
            bytes
        };
        read_object(&bytes).map(Self)
    }
}

impl FromRequest<Arc<App>> for RawJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let bytes = body_bytes(request.into_body(), app.max_request_bytes()).await?;
        read_object::<serde::de::IgnoredAny>(&bytes)?;
        Ok(Self(bytes))
    }
}

impl FromRequest<Arc<App>> for OptionalRawJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let bytes = body_bytes(request.into_body(), app.max_request_bytes()).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        read_object::<serde::de::IgnoredAny>(&bytes)?;
        Ok(Self(Some(bytes)))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let json = HeaderValue::from_static("application/json");
                ([(CONTENT_TYPE, json)], body).into_response()
            }
            Err(error) => ApiError::internal(&error).into_response(),
        }
    }
}

/// Reads a whole body of at most `limit` bytes.
pub async fn body_bytes(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut whole = pin!(Limited::new(body, limit).collect());
    // Most bodies have come with their head, and need no clock.
    let read = match futures::poll!(whole.as_mut()) {
        Poll::Ready(read) => read,
        Poll::Pending => tokio::time::timeout(BODY_READ_TIMEOUT, whole)
            .await
            .map_err(|_| MatrixError::new(408, errcode::UNKNOWN, "The body did not come in time"))?,
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(MatrixError::too_large(format!("The body is larger than {limit} bytes")).into())
        }
        Err(_) => Err(MatrixError::not_json("The body ended too early").into()),
    }
}

/// Reads a JSON object. What is no JSON at all is M_NOT_JSON; JSON of another shape M_BAD_JSON.
pub fn read_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde_json skips over fields that nobody wants without checking their UTF-8.
    let text =
        std::str::from_utf8(bytes).map_err(|_| MatrixError::not_json("The body is not valid UTF-8"))?;
    let opened = bytes.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if opened > JSON_MAX_DEPTH && hearth_events::nesting(bytes) > JSON_MAX_DEPTH {
        let sentence = format!("The JSON is nested deeper than {JSON_MAX_DEPTH} levels");
        return Err(MatrixError::bad_json(sentence).into());
    }
    // serde_json refuses these, too, where it reads them, and not in what is kept as sent.
    if hearth_events::has_endless_number(bytes) {
        return Err(MatrixError::bad_json("A number in the JSON is too large").into());
    }
    if has_half_pair(bytes) {
        let sentence = "A text in the JSON has half of a surrogate pair, which stands for no character";
        return Err(MatrixError::bad_json(sentence).into());
    }
    // A derived struct would also read an array, so the shape is checked first.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err(match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => MatrixError::bad_json("The body must be a JSON object"),
            Err(error) => MatrixError::not_json(format!("The body is not JSON: {error}")),
        }
        .into());
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => MatrixError::bad_json(error.to_string()).into(),
        _ => MatrixError::not_json(format!("The body is not JSON: {error}")).into(),
    })
}

/// Reads a field that may be left out; a client that says null has left it out. With `#[serde(default)]`.
pub fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether an escape stands for half of a surrogate pair: serde_json refuses it where it reads the text, and not in
/// what is kept as sent, which others then could not read.
fn has_half_pair(bytes: &[u8]) -> bool {
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\\', &bytes[at..]) {
        at += next;
        at += match unit(at) {
            Some(0xD800..=0xDBFF) => match unit(at + 6) {
                Some(0xDC00..=0xDFFF) => 12,
                _ => return true,
            },
            Some(0xDC00..=0xDFFF) => return true,
            _ => 2,
        };
        if at >= bytes.len() {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http::StatusCode;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only whether it can be read matters")]
    struct Wanted {
        name: String,
        count: Option<u32>,
        #[serde(default, deserialize_with = "or_default")]
        many: Vec<u32>,
    }

    /// A body in pieces, of which the last never comes where it is `None`.
    async fn of_pieces(pieces: &'static [Option<&'static str>]) -> Result<Bytes, ApiError> {
        let pieces = futures::stream::iter(pieces).then(|piece| async move {
            tokio::time::sleep(BODY_READ_TIMEOUT / 4).await;
            match piece {
                Some(piece) => Ok::<_, std::convert::Infallible>(Bytes::from_static(piece.as_bytes())),
                None => std::future::pending().await,
            }
        });
        body_bytes(Body::from_stream(pieces), 4).await
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_take_their_time() {
        assert_eq!(of_pieces(&[]).await.expect("a body"), "");
        assert_eq!(
            of_pieces(&[Some("ab"), Some("cd")]).await.expect("a body"),
            "abcd"
        );
        for (pieces, status) in [
            (&[Some("ab"), Some("cde")][..], StatusCode::PAYLOAD_TOO_LARGE),
            (&[Some("a"), None], StatusCode::REQUEST_TIMEOUT),
            (&[Some(""); 5], StatusCode::REQUEST_TIMEOUT),
        ] {
            let error = of_pieces(pieces).await.expect_err("no body");
            assert_eq!(error.status(), status, "{pieces:?}");
        }
    }

    #[test]
    fn bodies() {
        let check = |body: &[u8], expected: Option<&str>| {
            let got = read_object::<Wanted>(body);
            let errcode = got.as_ref().err().and_then(ApiError::errcode);
            assert_eq!(errcode, expected, "{}: {got:?}", String::from_utf8_lossy(body));
        };
        check(br#"{"name":"x"}"#, None);
        check(b" \r\n\t{\"name\":\"x\",\"count\":1,\"more\":{}}", None);
        check(b"", Some("M_NOT_JSON"));
        check(b"{", Some("M_NOT_JSON"));
        check(b"{}x", Some("M_BAD_JSON"));
        check(br#"{"name":"x"} trailing"#, Some("M_NOT_JSON"));
        check(br#"{"name":NaN}"#, Some("M_NOT_JSON"));
        check(b"{\"name\":\"a\x81\"}", Some("M_NOT_JSON"));
        check(b"{\"name\":\"a\",\"other\":\"a\x81\"}", Some("M_NOT_JSON"));
        check(br#"{"name":"x","count":null,"many":null}"#, None);
        check(br#"{"name":"x","many":[1]}"#, None);
        check(br#"{"name":"x","many":1}"#, Some("M_BAD_JSON"));
        check(br#"{"name":null}"#, Some("M_BAD_JSON"));
        check(br#"{"name":1}"#, Some("M_BAD_JSON"));
        check(br#"{"name":"x","count":-1}"#, Some("M_BAD_JSON"));
        check(br#"["x",1]"#, Some("M_BAD_JSON"));
        check(br#""x""#, Some("M_BAD_JSON"));
        check(b"null", Some("M_BAD_JSON"));
        check(b"nul", Some("M_NOT_JSON"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let begun = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
        let stalled = futures::StreamExt::chain(begun, futures::stream::pending());
        let error = body_bytes(Body::from_stream(stalled), 100)
            .await
            .expect_err("given up");
        assert_eq!(
            (error.status(), error.errcode()),
            (StatusCode::REQUEST_TIMEOUT, Some("M_UNKNOWN"))
        );
        let whole = body_bytes(Body::from("{}"), 100).await.expect("a body");
        assert_eq!(&whole[..], b"{}");
    }

    #[test]
    fn half_pairs_are_refused_in_what_is_kept_as_sent() {
        let check = |text: &str, good: bool| {
            let body = format!(r#"{{"more":"{text}"}}"#);
            let got = read_object::<Box<serde_json::value::RawValue>>(body.as_bytes());
            let errcode = got.as_ref().err().and_then(ApiError::errcode);
            assert_eq!(errcode, (!good).then_some("M_BAD_JSON"), "{body}");
        };
        check(r"\ud83d\ude00", true);
        check(r"\u00e4\\", true);
        check(r"\\ud83d", true);
        check(r"\ud83d", false);
        check(r"\ud83d\\ude00", false);
        check(r"\ud83dx\ude00", false);
        check(r"\uDE00", false);
        check(r"\\\uDE00", false);
    }

    #[test]
    fn numbers_without_end_are_refused() {
        for number in ["1e999".to_owned(), "9".repeat(400)] {
            let body = format!(r#"{{"name":"x","more":{number}}}"#);
            let error = read_object::<Wanted>(body.as_bytes()).expect_err("too large");
            assert_eq!(error.errcode(), Some("M_BAD_JSON"));
        }
    }

    #[test]
    fn deep_json_is_refused() {
        let nested = |levels: usize| {
            let inner = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"name":"x","more":{inner}}}"#)
        };
        read_object::<Wanted>(nested(99).as_bytes()).expect("just deep enough");
        for levels in [100, 1_000, 100_000] {
            let error = read_object::<Wanted>(nested(levels).as_bytes()).expect_err("too deep");
            assert_eq!(error.errcode(), Some("M_BAD_JSON"));
        }
    }
}
