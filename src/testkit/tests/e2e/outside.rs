//! What needs somebody outside who is no Matrix server: web pages that are previewed, and application services. The test kit
//! compares the answers with their schemas.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hearth_core::http::{Outbound, OutboundRequest, OutboundResponse, TransportError};
use hearth_testkit::client::text;
use hearth_testkit::{TestServer, encode};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

/// A picture of 64 by 64 pixels.
fn picture() -> Vec<u8> {
    const PNG: &str = "\
        iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAT0lEQVR42u3PQQkAAAgEsItiNKMZ1Qi+hcEKLNXzWgQEBAQEBAQE\
        BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQELgui/wEPZWzwqQAAAABJRU5ErkJggg==";
    STANDARD.decode(PNG).expect("Base64")
}

/// A web server with one page and its picture, which is an application service besides.
struct OtherSide;

#[async_trait]
impl Outbound for OtherSide {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        let (content_type, body) = match request.path_and_query.as_str() {
            "/page" => (
                "text/html",
                b"<meta property=og:title content=Page><meta property=og:image content=/picture>".to_vec(),
            ),
            "/picture" => ("image/png", picture()),
            "/_matrix/app/v1/ping" => ("application/json", b"{}".to_vec()),
            _ => return Err(TransportError::Unreachable("nobody there".into())),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(OutboundResponse {
            status: StatusCode::OK,
            headers,
            body: body.into(),
        })
    }
}

#[tokio::test]
async fn previews_and_thumbnails() {
    let server = TestServer::reaching(Arc::new(OtherSide), |config| config.url_preview.enabled = true).await;
    let alice = server.register("alice").await;
    let query = "url=https%3A%2F%2Fexample.org%2Fpage&ts=1";
    let mut images = Vec::new();
    for path in [
        "/_matrix/client/v1/media/preview_url",
        "/_matrix/media/v3/preview_url",
    ] {
        let preview = alice.get(&format!("{path}?{query}")).await.ok();
        assert_eq!(preview["og:title"], "Page");
        assert_eq!(preview["og:image:width"], 64);
        assert_eq!(preview["matrix:image:size"], picture().len());
        images.push(text(&preview, "og:image"));
    }
    let upload = server.call_bytes("POST", "/_matrix/media/v3/upload", Some(&alice.token), picture());
    images.push(text(&upload.await.ok(), "content_uri"));
    for image in images {
        let id = image.strip_prefix("mxc://").expect("an mxc URI");
        for size in [
            "width=16&height=16&method=crop",
            "width=32&height=32",
            "width=640&height=480&animated=false",
        ] {
            let path = format!("/_matrix/client/v1/media/thumbnail/{id}?{size}");
            let answer = alice.get(&path).await;
            let content_type = answer
                .headers
                .get(CONTENT_TYPE)
                .and_then(|kind| kind.to_str().ok());
            assert_eq!((answer.status, content_type), (200, Some("image/png")), "{path}");
            assert!(answer.body.starts_with(b"\x89PNG"), "{path}");
        }
    }
}

#[tokio::test]
async fn what_application_services_ask() {
    let folder = tempfile::tempdir().expect("a folder");
    let registration = "id: bridge\nurl: http://bridge.test\nas_token: as\nhs_token: hs\n\
        sender_localpart: bridge\nnamespaces: {}\nprotocols: [irc]\n";
    std::fs::write(folder.path().join("bridge.yaml"), registration).expect("written");
    let registrations = folder.path().to_owned();
    let server = TestServer::reaching(Arc::new(OtherSide), |config| {
        config.appservice_dir = Some(registrations);
    })
    .await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let bridge = Some("as");
    let ping = "/_matrix/client/v1/appservice/bridge/ping";
    for body in [json!({ "transaction_id": "one" }), json!({})] {
        let answer = server.call("POST", ping, bridge, body).await.ok();
        assert!(answer["duration_ms"].is_u64(), "{answer}");
    }
    server
        .call("POST", ping, Some(&alice.token), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    let list = format!(
        "/_matrix/client/v3/directory/list/appservice/irc/{}",
        encode(&room)
    );
    for visibility in ["public", "private"] {
        let body = json!({ "visibility": visibility });
        server.call("PUT", &list, bridge, body).await.ok();
    }
    server
        .call(
            "PUT",
            &list,
            Some(&alice.token),
            json!({ "visibility": "public" }),
        )
        .await
        .refused(403, "M_FORBIDDEN");
}
