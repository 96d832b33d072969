//! The content repository, and pings of application services.

use http::header;

use super::*;

const UPLOAD: &str = "/_matrix/media/v3/upload";
const MEDIA: &str = "/_matrix/client/v1/media";

impl Server {
    async fn send_bytes(
        &self,
        method: &str,
        path: &str,
        token: &str,
        content_type: &str,
        bytes: &[u8],
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", content_type)
            .body(Body::from(bytes.to_vec()))
            .expect("a request");
        self.send(request).await
    }

    /// Uploads and gives `server/id`.
    async fn upload(&self, token: &str, query: &str, content_type: &str, bytes: &[u8]) -> String {
        let path = format!("{UPLOAD}{query}");
        let answer = self
            .send_bytes("POST", &path, token, content_type, bytes)
            .await
            .ok();
        let uri = answer["content_uri"].as_str().expect("a URI");
        uri.strip_prefix("mxc://").expect("an mxc URI").to_owned()
    }

    async fn get_with(&self, path: &str, token: &str, name: &str, value: &str) -> Answer {
        let request = Request::builder()
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header(name, value)
            .body(Body::empty())
            .expect("a request");
        self.send(request).await
    }
}

fn header_of<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers[name].to_str().expect("printable")
}

#[tokio::test]
async fn upload_and_download() {
    let server = Server::new();
    let token = server.user("alice", "A").await;
    let media = server
        .upload(
            &token,
            "?filename=name%20with;%22quotes%22",
            "text/plain",
            b"Hello World!",
        )
        .await;
    let path = format!("{MEDIA}/download/{media}");
    let answer = server.get(&path, &token).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &b"Hello World!"[..])
    );
    assert_eq!(header_of(&answer, "content-type"), "text/plain");
    assert_eq!(header_of(&answer, "content-length"), "12");
    let disposition = "inline; filename=\"name with;\\\"quotes\\\"\"";
    assert_eq!(header_of(&answer, "content-disposition"), disposition);
    assert_eq!(header_of(&answer, "x-content-type-options"), "nosniff");
    assert!(header_of(&answer, "content-security-policy").starts_with("sandbox;"));
    assert_eq!(header_of(&answer, "cross-origin-resource-policy"), "cross-origin");
    let named = server.get(&format!("{path}/%E2%98%95"), &token).await;
    assert_eq!(
        header_of(&named, "content-disposition"),
        "inline; filename*=utf-8''%E2%98%95"
    );
    let etag = header_of(&answer, "etag");
    let known = server.get_with(&path, &token, "if-none-match", etag).await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
    server
        .call("GET", &path, None, Value::Null)
        .await
        .refused(401, "M_MISSING_TOKEN");
    for wrong in ["hs1/missing", "elsewhere/abc", "hs1/..%2fx", "%20/abc"] {
        let path = format!("{MEDIA}/download/{wrong}");
        server.get(&path, &token).await.refused(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn dangerous_types_are_attachments() {
    let server = Server::new();
    let token = server.user("alice", "A").await;
    for (content_type, start) in [
        ("text/html", "attachment"),
        ("image/svg+xml", "attachment"),
        ("Text/Plain; charset=utf-8", "inline"),
    ] {
        let media = server
            .upload(&token, "?filename=x", content_type, b"<svg/>")
            .await;
        let answer = server.get(&format!("{MEDIA}/download/{media}"), &token).await;
        assert!(
            header_of(&answer, "content-disposition").starts_with(start),
            "{content_type}"
        );
        assert_eq!(header_of(&answer, "content-type"), content_type);
    }
}

#[tokio::test]
async fn ranges() {
    let server = Server::new();
    let token = server.user("alice", "A").await;
    let media = server.upload(&token, "", "video/mp4", b"0123456789").await;
    let path = format!("{MEDIA}/download/{media}");
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, Some("bytes 2-4/10"), "234"),
        ("bytes=-2", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=0-1,3-4", 200, None, "0123456789"),
        ("lines=1-2", 200, None, "0123456789"),
    ] {
        let answer = server.get_with(&path, &token, "range", range).await;
        assert_eq!(answer.status.as_u16(), status, "{range}");
        assert_eq!(
            answer
                .headers
                .get("content-range")
                .and_then(|value| value.to_str().ok()),
            content_range
        );
        assert_eq!(answer.body, body, "{range}");
    }
    let answer = server.get_with(&path, &token, "range", "bytes=10-").await;
    assert_eq!(header_of(&answer, "content-range"), "bytes */10");
    answer.refused(416, "M_INVALID_PARAM");
}

#[tokio::test]
async fn announced_uploads() {
    let server = Server::new();
    let token = server.user("alice", "A").await;
    let created = server
        .post("/_matrix/media/v1/create", &token, Value::Null)
        .await
        .ok();
    assert!(created["unused_expires_at"].as_u64().is_some());
    let media = created["content_uri"]
        .as_str()
        .expect("a URI")
        .replace("mxc://", "");
    let path = format!("{MEDIA}/download/{media}?timeout_ms=10");
    server.get(&path, &token).await.refused(504, "M_NOT_YET_UPLOADED");
    let put = format!("{UPLOAD}/{media}?filename=a.txt");
    let other = server.user("bob", "B").await;
    server
        .send_bytes("PUT", &put, &other, "text/plain", b"x")
        .await
        .refused(403, "M_FORBIDDEN");
    assert_eq!(
        server
            .send_bytes("PUT", &put, &token, "text/plain", b"x")
            .await
            .ok(),
        json!({})
    );
    let again = server.send_bytes("PUT", &put, &token, "text/plain", b"").await;
    again.refused(409, "M_CANNOT_OVERWRITE_MEDIA");
    assert_eq!(server.get(&path, &token).await.body, "x");
    let unknown = format!("{UPLOAD}/hs1/unknown");
    server
        .send_bytes("PUT", &unknown, &token, "text/plain", b"x")
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn large_uploads_are_refused() {
    let server = Server::with(|config| config.max_upload_bytes = 10, Registrations::default());
    let token = server.user("alice", "A").await;
    let config = server.get(&format!("{MEDIA}/config"), &token).await.ok();
    assert_eq!(config, json!({ "m.upload.size": 10 }));
    server.get("/_matrix/media/v3/config", &token).await.ok();
    server.upload(&token, "", "text/plain", b"0123456789").await;
    let answer = server
        .send_bytes("POST", UPLOAD, &token, "text/plain", b"0123456789x")
        .await;
    answer.refused(413, "M_TOO_LARGE");
    let request = Request::builder()
        .method("POST")
        .uri(UPLOAD)
        .header("authorization", format!("Bearer {token}"))
        .header(header::CONTENT_LENGTH, "11")
        .body(Body::empty());
    server
        .send(request.expect("a request"))
        .await
        .refused(413, "M_TOO_LARGE");
}

#[tokio::test]
async fn thumbnails() {
    let server = Server::new();
    let token = server.user("alice", "A").await;
    let mut png = std::io::Cursor::new(Vec::new());
    let picture = image::DynamicImage::new_rgb8(200, 100);
    picture
        .write_to(&mut png, image::ImageFormat::Png)
        .expect("a picture");
    let media = server.upload(&token, "", "text/html", png.get_ref()).await;
    let path = format!("{MEDIA}/thumbnail/{media}");
    let answer = server
        .get(&format!("{path}?width=32&height=32&method=crop"), &token)
        .await;
    assert_eq!(header_of(&answer, "content-type"), "image/png");
    assert_eq!(
        header_of(&answer, "content-disposition"),
        "inline; filename=\"thumbnail.png\""
    );
    assert_eq!(
        header_of(&answer, "content-length"),
        answer.body.len().to_string()
    );
    let small = image::load_from_memory(&answer.body).expect("a picture");
    assert_eq!((small.width(), small.height()), (32, 32));
    let whole = server.get(&format!("{path}?width=640&height=480"), &token).await;
    assert_eq!(whole.body, png.get_ref());
    assert_eq!(header_of(&whole, "content-type"), "image/png");
    for (query, errcode) in [
        ("", "M_MISSING_PARAM"),
        ("?width=32", "M_MISSING_PARAM"),
        ("?width=-1&height=1", "M_INVALID_PARAM"),
        ("?width=0&height=1", "M_INVALID_PARAM"),
        ("?width=1&height=1&method=melt", "M_INVALID_PARAM"),
    ] {
        server
            .get(&format!("{path}{query}"), &token)
            .await
            .refused(400, errcode);
    }
    let text = server.upload(&token, "", "image/png", b"no picture").await;
    let path = format!("{MEDIA}/thumbnail/{text}?width=1&height=1");
    server.get(&path, &token).await.refused(400, "M_UNKNOWN");
}

#[tokio::test]
async fn old_addresses() {
    for open in [false, true] {
        let server = Server::with(
            |config| config.unauthenticated_media = open,
            Registrations::default(),
        );
        let token = server.user("alice", "A").await;
        let media = server.upload(&token, "", "text/plain", b"x").await;
        for version in ["v3", "r0", "v1"] {
            for end in ["", "/name"] {
                let path = format!("/_matrix/media/{version}/download/{media}{end}");
                assert_eq!(server.get(&path, &token).await.status, 200, "with a token");
                let answer = server.call("GET", &path, None, Value::Null).await;
                // Servers from before there was another way sign what they ask.
                let signed = Request::builder().uri(&path).header(
                    "authorization",
                    "X-Matrix origin=\"hs2\",key=\"ed25519:k\",sig=\"s\"",
                );
                let by_server = server.send(signed.body(Body::empty()).expect("a request")).await;
                for answer in [answer, by_server] {
                    match open {
                        true => assert_eq!(answer.body, "x"),
                        false => drop(answer.refused(404, "M_NOT_FOUND")),
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn pings() {
    let text = "{id: bridge, url: 'http://localhost:1', as_token: secret, hs_token: other, \
                sender_localpart: bot, namespaces: {}}";
    let name = "hs1".try_into().expect("a server name");
    let appservices = Registrations::from_texts(vec![("bridge.yaml".into(), text.into())], &name);
    let server = Server::with(|_| {}, appservices.expect("a registration"));
    let path = "/_matrix/client/v1/appservice/bridge/ping";
    let answer = server
        .post(path, "secret", json!({ "transaction_id": "a" }))
        .await;
    answer.refused(502, "M_CONNECTION_FAILED");
    let other = "/_matrix/client/v1/appservice/other/ping";
    server
        .post(other, "secret", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    let token = server.user("alice", "A").await;
    server
        .post(path, &token, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
}
