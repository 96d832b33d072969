//! Previews of web pages.

use async_trait::async_trait;
use hearth_core::http::{Outbound, OutboundRequest, OutboundResponse, TransportError};
use serde_json::json;

use super::*;

/// A web in which every page is the same.
struct OnePage;

#[async_trait]
impl Outbound for OnePage {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        if request.path_and_query == "/private" {
            return Err(TransportError::Refused("the address is not public".into()));
        }
        if request.path_and_query == "/gone" {
            return Err(TransportError::Unreachable("nobody there".into()));
        }
        let mut headers = HeaderMap::new();
        headers.insert("content-type", http::HeaderValue::from_static("text/html"));
        Ok(OutboundResponse {
            status: StatusCode::OK,
            headers,
            body: Bytes::from_static(b"<title>Page</title>"),
        })
    }
}

const PATHS: [&str; 2] = [
    "/_matrix/client/v1/media/preview_url",
    "/_matrix/media/v3/preview_url",
];

#[tokio::test]
async fn a_preview_is_for_users_and_by_the_settings() {
    let on = |config: &mut Config| config.url_preview.enabled = true;
    let server = Server::reaching(on, Registrations::default(), Arc::new(OnePage));
    let alice = server.user("alice", "A").await;
    for path in PATHS {
        let page = format!("{path}?url=https%3A%2F%2Fexample.org%2F&ts=1");
        let preview = server.get(&page, &alice).await.ok();
        assert_eq!(preview, json!({ "og:title": "Page" }));
        server
            .call("GET", &page, None, Value::Null)
            .await
            .refused(401, "M_MISSING_TOKEN");
        server.get(path, &alice).await.refused(400, "M_MISSING_PARAM");
        for (url, status, errcode) in [
            ("nonsense", 400, "M_INVALID_PARAM"),
            ("ftp://example.org/", 400, "M_INVALID_PARAM"),
            ("https://example.org/private", 403, "M_FORBIDDEN"),
            ("https://example.org/gone", 502, "M_UNKNOWN"),
        ] {
            server
                .get(&format!("{path}?url={url}"), &alice)
                .await
                .refused(status, errcode);
        }
    }
}

#[tokio::test]
async fn previews_are_off_by_default_and_limited() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    for path in PATHS {
        server
            .get(&format!("{path}?url=https://example.org/"), &alice)
            .await
            .refused(404, "M_UNRECOGNIZED");
    }
    let on = |config: &mut Config| {
        config.url_preview.enabled = true;
        config.rate_limits = true;
        config.rate_limit.url_preview.burst = 2;
    };
    let server = Server::reaching(on, Registrations::default(), Arc::new(OnePage));
    let bob = server.user("bob", "B").await;
    let page = format!("{}?url=https://example.org/", PATHS[0]);
    for _ in 0..2 {
        server.get(&page, &bob).await.ok();
    }
    server.get(&page, &bob).await.refused(429, "M_LIMIT_EXCEEDED");
}
