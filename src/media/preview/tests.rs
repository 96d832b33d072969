//! Previews over a web of a few pages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use hearth_core::http::{Destination, Outbound, OutboundRequest, OutboundResponse, TransportError};
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;

use super::*;
use crate::tests::{Bench, bench};

/// A page: status, headers, body.
type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

#[derive(Default)]
struct Web {
    pages: Mutex<BTreeMap<String, Answer>>,
    asked: AtomicUsize,
}

impl Web {
    fn page(&self, url: &str, html: &str) {
        let headers = vec![("content-type", "text/html; charset=utf-8".to_owned())];
        self.pages
            .lock()
            .insert(url.to_owned(), (200, headers, html.into()));
    }

    fn file(&self, url: &str, content_type: &str, bytes: &[u8]) {
        let headers = vec![("content-type", content_type.to_owned())];
        self.pages
            .lock()
            .insert(url.to_owned(), (200, headers, bytes.into()));
    }

    fn redirect(&self, from: &str, to: &str) {
        let headers = vec![("location", to.to_owned())];
        self.pages
            .lock()
            .insert(from.to_owned(), (302, headers, Vec::new()));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Outbound for Web {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let Destination::Url(base) = &request.destination else {
            return Err(TransportError::Refused("not a URL".into()));
        };
        if base.ends_with("internal") {
            return Err(TransportError::Refused("the address is not public".into()));
        }
        let url = format!("{base}{}", request.path_and_query);
        let found = self.pages.lock().get(&url).cloned();
        let (status, headers, body) = found.ok_or(TransportError::Unreachable("nobody there".into()))?;
        if body.len() > request.max_response_bytes {
            return Err(TransportError::TooLarge);
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name, HeaderValue::from_str(&value).unwrap());
        }
        Ok(OutboundResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: Bytes::from(body),
        })
    }
}

fn previews(bench: &Bench, web: &Arc<Web>, policy: Policy) -> Previews {
    let settings = PreviewSettings {
        policy,
        kept_ms: 3_600_000,
        cache_bytes: 1 << 20,
    };
    Previews::new(bench.store.clone(), web.clone(), settings)
}

fn picture(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(width, height)
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn a_page_and_its_picture() {
    let (bench, web) = (bench(4), Arc::new(Web::default()));
    let bytes = picture(20, 10);
    web.page(
        "https://a.example/dir/page?x=1",
        "<meta property=og:title content=T><meta property=og:image content='../face.png'>\
         <meta property=og:image:width content=9999>",
    );
    web.file("https://a.example/face.png", "application/octet-stream", &bytes);
    let previews = previews(&bench, &web, Policy::default());
    let preview = previews
        .preview("https://A.example/dir/page?x=1#part")
        .await
        .unwrap();
    assert_eq!(preview["og:title"], "T");
    assert_eq!(preview["og:image:type"], "image/png");
    assert_eq!(
        (&preview["og:image:width"], &preview["og:image:height"]),
        (&json!(20), &json!(10))
    );
    assert_eq!(preview["matrix:image:size"], bytes.len());
    let uri = preview["og:image"].as_str().unwrap().to_owned();
    let id = uri.strip_prefix("mxc://example.org/").unwrap();
    let media = crate::MediaId::new("example.org", id).unwrap();
    assert_eq!(bench.bytes_of(&media).await.unwrap(), bytes);

    // It is kept for a time, and its picture under the same id afterwards too.
    let asked = web.asked();
    previews.preview("https://a.example/dir/page?x=1").await.unwrap();
    assert_eq!(web.asked(), asked);
    bench.clock.advance(3_600_000);
    let later = previews.preview("https://a.example/dir/page?x=1").await.unwrap();
    assert_eq!(web.asked(), 2 * asked);
    assert_eq!(later["og:image"], uri.as_str());
    assert_eq!(bench.files(), 1);
}

#[tokio::test]
async fn what_is_no_picture_is_left_out() {
    let (bench, web) = (bench(4), Arc::new(Web::default()));
    let previews = previews(&bench, &web, Policy::default());
    web.file(
        "https://a.example/x.svg",
        "image/svg+xml",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    );
    for (number, picture) in [
        "x.svg",
        "missing.png",
        "http://",
        "data:image/png;base64,AA",
        "http://db.internal/x.png",
    ]
    .iter()
    .enumerate()
    {
        let url = format!("https://a.example/{number}");
        web.page(
            &url,
            &format!("<title>T</title><meta property=og:image content='{picture}'>"),
        );
        let preview = previews.preview(&url).await.unwrap();
        assert_eq!(json!(*preview), json!({ "og:title": "T" }), "{picture}");
    }
    assert_eq!((bench.files(), bench.incoming()), (0, 0));
    web.file("https://a.example/data.bin", "application/zip", b"PK");
    assert!(
        previews
            .preview("https://a.example/data.bin")
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_picture_by_itself_has_a_preview() {
    let (bench, web) = (bench(4), Arc::new(Web::default()));
    web.file("https://a.example/cat.png", "image/png", &picture(3, 4));
    let previews = previews(&bench, &web, Policy::default());
    let preview = previews.preview("https://a.example/cat.png").await.unwrap();
    assert_eq!(
        (&preview["og:title"], &preview["og:image:height"]),
        (&json!("cat.png"), &json!(4))
    );
}

#[tokio::test]
async fn each_hop_of_a_redirect_is_checked() {
    let (bench, web) = (bench(4), Arc::new(Web::default()));
    web.page("https://a.example/end", "<title>End</title>");
    web.redirect("http://a.example/", "https://a.example/one");
    web.redirect("https://a.example/one", "/end");
    web.redirect("https://a.example/loop", "/loop");
    web.redirect("https://a.example/denied", "https://www.denied.example/");
    web.redirect("https://a.example/inside", "http://db.internal/");
    web.redirect("https://a.example/file", "file:///etc/passwd");
    web.page("https://www.denied.example/", "<title>Secret</title>");
    let policy = Policy {
        deny: vec!["denied.example".to_owned()],
        ..Policy::default()
    };
    let previews = previews(&bench, &web, policy);
    assert_eq!(
        previews.preview("http://a.example").await.unwrap()["og:title"],
        "End"
    );
    for (path, allowed) in [
        ("denied", false),
        ("inside", false),
        ("file", false),
        ("loop", true),
    ] {
        let error = previews
            .preview(&format!("https://a.example/{path}"))
            .await
            .unwrap_err();
        assert_eq!(matches!(error, Error::Page(_)), allowed, "{path}: {error}");
    }
    let asked = web.asked();
    for refused in [
        "https://denied.example/",
        "ftp://a.example/",
        "nonsense",
        "https://u:p@a.example/",
    ] {
        previews.preview(refused).await.unwrap_err();
    }
    assert_eq!(web.asked(), asked, "what is refused is not asked");
}

#[tokio::test]
async fn a_page_that_cannot_be_read_is_not_asked_again_at_once() {
    let (bench, web) = (bench(4), Arc::new(Web::default()));
    let previews = previews(&bench, &web, Policy::default());
    for _ in 0..3 {
        let error = previews.preview("https://gone.example/").await.unwrap_err();
        assert!(matches!(error, Error::Page(_)), "{error}");
    }
    assert_eq!(web.asked(), 1);
    web.page("https://gone.example/", "<title>Back</title>");
    bench.clock.advance(FAILURE_KEPT_MS);
    assert_eq!(
        previews.preview("https://gone.example/").await.unwrap()["og:title"],
        "Back"
    );
    let long = "x".repeat(PAGE_MAX_BYTES + 1);
    web.page("https://long.example/", &long);
    assert!(matches!(
        previews.preview("https://long.example/").await,
        Err(Error::Page(_))
    ));
}

#[tokio::test]
async fn many_who_ask_at_once_make_one_request() {
    let (bench, web) = (bench(4), Arc::new(Web::default()));
    web.page("https://a.example/", "<title>T</title>");
    let previews = previews(&bench, &web, Policy::default());
    let all = futures::future::join_all((0..20).map(|_| previews.preview("https://a.example/"))).await;
    assert!(all.into_iter().all(|preview| preview.unwrap()["og:title"] == "T"));
    assert_eq!(web.asked(), 1);
}

#[tokio::test]
async fn a_picture_that_was_taken_out_of_sight_stays_so() {
    let (bench, web) = (bench(4), Arc::new(Web::default()));
    web.page(
        "https://a.example/",
        "<title>T</title><meta property=og:image content=x.png>",
    );
    web.file("https://a.example/x.png", "image/png", &picture(5, 5));
    let previews = previews(&bench, &web, Policy::default());
    let preview = previews.preview("https://a.example/").await.unwrap();
    let uri = preview["og:image"].as_str().unwrap();
    let media = crate::MediaId::new("example.org", uri.rsplit('/').next().unwrap()).unwrap();
    bench
        .store
        .quarantine(&media, Some(ruma::user_id!("@admin:example.org")))
        .await
        .unwrap();
    bench.clock.advance(3_600_000);
    let later = previews.preview("https://a.example/").await.unwrap();
    assert_eq!(json!(*later), json!({ "og:title": "T" }));
}
