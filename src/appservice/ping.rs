//! `POST /_matrix/app/v1/ping`: asks an application service whether the connection works.

use std::time::Duration;

use bytes::Bytes;
use hearth_core::{
    clock::Clock,
    error::MatrixError,
    http::{Destination, Outbound, OutboundRequest, OutboundResponse, TransportError},
};
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::json;

use crate::Registration;

/// How long an application service may take to answer, in seconds. A person waits for the answer.
const PING_TIMEOUT_SECONDS: u64 = 30;

/// How much of an answer is read, in bytes: a good one is `{}`, a bad one is only shown.
const PING_RESPONSE_MAX_BYTES: usize = 64 * 1024;

/// Pings the application service; gives how long the answer took, in milliseconds.
pub async fn ping(
    registration: &Registration,
    transaction_id: Option<&str>,
    outbound: &dyn Outbound,
    clock: &dyn Clock,
) -> Result<u64, MatrixError> {
    let Some(url) = &registration.url else {
        return Err(MatrixError::new(
            400,
            "M_URL_NOT_SET",
            "The application service has no URL configured",
        ));
    };
    let request = request(url, &registration.hs_token, transaction_id)
        .map_err(|message| MatrixError::new(502, "M_CONNECTION_FAILED", message))?;
    let started_ms = clock.now_ms();
    let response = outbound.send(request).await.map_err(connection_error)?;
    let duration_ms = clock.now_ms().saturating_sub(started_ms);
    if !response.status.is_success() {
        return Err(bad_status(&response));
    }
    Ok(duration_ms)
}

fn request(url: &str, hs_token: &str, transaction_id: Option<&str>) -> Result<OutboundRequest, String> {
    let (base, path) = split_url(url)?;
    let mut authorization = HeaderValue::try_from(format!("Bearer {hs_token}"))
        .map_err(|_| "the hs_token cannot be sent in a header".to_owned())?;
    authorization.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, authorization);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = match transaction_id {
        Some(transaction_id) => json!({ "transaction_id": transaction_id }),
        None => json!({}),
    };
    Ok(OutboundRequest {
        destination: Destination::Url(base),
        method: Method::POST,
        path_and_query: format!("{path}/_matrix/app/v1/ping"),
        headers,
        body: Bytes::from(body.to_string()),
        timeout: Duration::from_secs(PING_TIMEOUT_SECONDS),
        max_response_bytes: PING_RESPONSE_MAX_BYTES,
    })
}

/// Splits a registration's URL into `scheme://authority` and the path below which its API lies,
/// without a slash at the end.
pub(crate) fn split_url(url: &str) -> Result<(String, String), String> {
    let uri: http::Uri = url
        .parse()
        .map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("{url:?} has no scheme or host"));
    };
    if scheme != "http" && scheme != "https" {
        return Err(format!("{url:?} is neither http nor https"));
    }
    let path = uri.path().trim_end_matches('/').to_owned();
    Ok((format!("{scheme}://{authority}"), path))
}

fn connection_error(error: TransportError) -> MatrixError {
    match error {
        TransportError::Timeout => MatrixError::new(
            504,
            "M_CONNECTION_TIMEOUT",
            "The application service did not answer in time",
        ),
        other => MatrixError::new(
            502,
            "M_CONNECTION_FAILED",
            format!("Cannot reach the application service: {other}"),
        ),
    }
}

fn bad_status(response: &OutboundResponse) -> MatrixError {
    let status = response.status.as_u16();
    let body = String::from_utf8_lossy(&response.body).into_owned();
    MatrixError::new(502, "M_BAD_STATUS", format!("The ping returned status {status}"))
        .with("status", json!(status))
        .with("body", json!(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use hearth_core::clock::ManualClock;
    use http::StatusCode;
    use parking_lot::Mutex;
    use ruma::server_name;
    use std::sync::Arc;

    enum Answer {
        Status(u16, &'static str),
        Timeout,
        Down,
    }

    struct Service {
        answer: Answer,
        clock: Arc<ManualClock>,
        seen: Mutex<Vec<OutboundRequest>>,
    }

    #[async_trait]
    impl Outbound for Service {
        async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
            self.clock.advance(42);
            self.seen.lock().push(request);
            match &self.answer {
                Answer::Status(status, body) => Ok(OutboundResponse {
                    status: StatusCode::from_u16(*status).unwrap(),
                    headers: HeaderMap::new(),
                    body: Bytes::from_static(body.as_bytes()),
                }),
                Answer::Timeout => Err(TransportError::Timeout),
                Answer::Down => Err(TransportError::Unreachable("refused".into())),
            }
        }
    }

    fn registration(url: &str) -> Registration {
        let text = format!(
            "{{id: a, url: {url}, as_token: t, hs_token: secret, sender_localpart: x, namespaces: {{}}}}"
        );
        let file = serde_yaml_ng::from_str(&text).unwrap();
        Registration::compile(file, server_name!("example.org")).unwrap()
    }

    async fn run(url: &str, answer: Answer) -> (Result<u64, MatrixError>, Vec<OutboundRequest>) {
        let clock = Arc::new(ManualClock::new(1_000));
        let service = Service {
            answer,
            clock: clock.clone(),
            seen: Mutex::default(),
        };
        let result = ping(&registration(url), Some("txn"), &service, &*clock).await;
        (result, service.seen.into_inner())
    }

    #[tokio::test]
    async fn a_good_answer_gives_the_duration() {
        let (result, seen) = run("http://bridge:29318/base/", Answer::Status(200, "{}")).await;
        assert_eq!(result.unwrap(), 42);
        let request = &seen[0];
        assert!(matches!(&request.destination, Destination::Url(url) if url == "http://bridge:29318"));
        assert_eq!(request.path_and_query, "/base/_matrix/app/v1/ping");
        assert_eq!(request.headers["authorization"], "Bearer secret");
        assert_eq!(&request.body[..], br#"{"transaction_id":"txn"}"#);
    }

    #[tokio::test]
    async fn failures_have_their_own_codes() {
        for (url, answer, status, errcode) in [
            ("null", Answer::Down, 400, "M_URL_NOT_SET"),
            ("http://b", Answer::Status(401, "no"), 502, "M_BAD_STATUS"),
            ("http://b", Answer::Timeout, 504, "M_CONNECTION_TIMEOUT"),
            ("http://b", Answer::Down, 502, "M_CONNECTION_FAILED"),
        ] {
            let (result, _) = run(url, answer).await;
            let error = result.unwrap_err();
            assert_eq!((error.status, error.errcode), (status, errcode));
            if errcode == "M_BAD_STATUS" {
                assert_eq!(error.extra["status"], 401);
                assert_eq!(error.extra["body"], "no");
            }
        }
    }

    #[test]
    fn urls() {
        for (url, expected) in [
            ("http://a", Some(("http://a", ""))),
            ("https://a:1/", Some(("https://a:1", ""))),
            ("https://a/x/y/", Some(("https://a", "/x/y"))),
            ("a:1", None),
            ("/x", None),
            ("ftp://a", None),
            ("http://", None),
        ] {
            let split = split_url(url).ok();
            let split = split.as_ref().map(|(base, path)| (base.as_str(), path.as_str()));
            assert_eq!(split, expected, "{url}");
        }
    }
}
