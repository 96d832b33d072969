//! The server's own pages: the start page, health and metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hearth_api::edge::PeerAddress;
use hearth_core::config::{Api, RegistrationMode};
use hearth_core::html::escape;
use hearth_core::{Config, MatrixError, VERSION};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST};
use http::{HeaderMap, StatusCode};

/// What the pages show.
pub trait Facts: Send + Sync {
    /// Whether requests can be answered now.
    fn ready(&self) -> bool;
    /// Bytes of the storage engine.
    fn storage_bytes(&self) -> Option<u64>;
    /// What is counted only when it is asked for, as Prometheus reads it.
    fn samples(&self) -> String;
}

struct Pages {
    config: Arc<Config>,
    facts: Arc<dyn Facts>,
}

/// The pages for a listener.
pub fn router(config: Arc<Config>, facts: Arc<dyn Facts>, apis: &[Api]) -> Router {
    let mut router = Router::new();
    if apis.contains(&Api::Client) {
        router = router.route("/", get(start_page));
    }
    if apis.contains(&Api::Health) {
        router = router
            .route("/_hearth/health/live", get(live))
            .route("/_hearth/health/ready", get(ready));
    }
    if apis.contains(&Api::Metrics) {
        router = router.route("/metrics", get(metrics));
    } else if apis.contains(&Api::Client) {
        router = router.route("/metrics", get(metrics_for_this_machine));
    }
    router.with_state(Arc::new(Pages { config, facts }))
}

async fn live() -> Response {
    ([(CACHE_CONTROL, "no-store")], "live\n").into_response()
}

async fn ready(State(pages): State<Arc<Pages>>) -> Response {
    let (status, text) = match pages.facts.ready() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    };
    (status, [(CACHE_CONTROL, "no-store")], text).into_response()
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let mut text = crate::metrics::render(pages.facts.storage_bytes());
    text.push_str(&pages.facts.samples());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn metrics_for_this_machine(state: State<Arc<Pages>>, request: Request) -> Response {
    if is_from_this_machine(&request) {
        return metrics(state).await;
    }
    let error = MatrixError::unrecognized();
    (StatusCode::NOT_FOUND, axum::Json(error.body())).into_response()
}

/// Whether the request was made by a program on this machine, and not passed on by a proxy on it.
fn is_from_this_machine(request: &Request) -> bool {
    let passed_on = ["x-forwarded-for", "forwarded", "x-real-ip", "via"];
    let direct = passed_on
        .iter()
        .all(|header| !request.headers().contains_key(*header));
    // Requests made inside the process have no peer.
    direct
        && request
            .extensions()
            .get::<PeerAddress>()
            .is_none_or(|peer| peer.0.is_loopback())
}

async fn start_page(State(pages): State<Arc<Pages>>, headers: HeaderMap) -> Response {
    let page = start_page_html(&pages.config, &headers);
    let headers = [(
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    )];
    (headers, Html(page)).into_response()
}

fn start_page_html(config: &Config, headers: &HeaderMap) -> String {
    let url = escape(&address_for_clients(config, headers));
    let name = escape(&config.server_name);
    let register = match config.registration {
        RegistrationMode::Open => "Choose <em>Create account</em>: anyone may register here.",
        RegistrationMode::Token => {
            "Choose <em>Create account</em>. You are asked for a registration token: the server prints one at its \
             first start, later ones come from its administrators."
        }
        RegistrationMode::Closed => "Log in. Accounts are made by this server's administrators.",
    };
    let terms: String = config
        .terms
        .iter()
        .map(|policy| {
            format!(
                "<li><a href=\"{}\">{}</a></li>",
                escape(&policy.url),
                escape(&policy.name)
            )
        })
        .collect();
    let terms = if terms.is_empty() {
        terms
    } else {
        format!("<h2>Terms</h2><ul>{terms}</ul>")
    };
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Hearth on {name}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 17px/1.6 system-ui, sans-serif; max-width: 38em; margin: 12vh auto; padding: 0 1.2em }}
h1 {{ font-size: 1.6em; margin-bottom: 0 }}
h2 {{ font-size: 1.1em; margin-top: 2em }}
code {{ padding: .15em .4em; border-radius: .3em; background: #8882; overflow-wrap: anywhere }}
.quiet {{ opacity: .7 }}
</style></head><body>
<h1>Hearth is running</h1>
<p class="quiet">A Matrix homeserver for <strong>{name}</strong>, version {VERSION}</p>
<h2>How to connect</h2>
<ol>
<li>Open a Matrix client, such as <a href="https://app.element.io">Element</a>.</li>
<li>Where it asks for your homeserver, choose <em>Edit</em> or <em>Other</em> and enter <code>{url}</code></li>
<li>{register}</li>
</ol>
{terms}
</body></html>
"#
    )
}

/// The configured address, or the one under which this page was asked for.
fn address_for_clients(config: &Config, headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match host {
        Some(host) if config.public_base_url.is_none() => {
            let secure = headers
                .get("x-forwarded-proto")
                .is_some_and(|proto| proto == "https");
            format!("{}://{host}", if secure { "https" } else { "http" })
        }
        _ => config.client_base_url(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn the_start_page_says_where_to_connect_and_escapes() {
        let mut config = Config::for_tests("example.org");
        let mut headers = HeaderMap::new();
        headers.insert(HOST, http::HeaderValue::from_static("<b>:8008"));
        let page = start_page_html(&config, &headers);
        assert!(
            page.contains("http://&lt;b&gt;:8008") && page.contains("example.org") && page.contains(VERSION)
        );
        config.public_base_url = Some("https://matrix.example.org/".to_owned());
        assert!(start_page_html(&config, &headers).contains("<code>https://matrix.example.org</code>"));
    }

    #[test]
    fn metrics_are_for_this_machine() {
        let check = |peer: Option<&str>, header: Option<&str>, expected: bool| {
            let mut request = Request::new(Body::empty());
            if let Some(peer) = peer {
                request
                    .extensions_mut()
                    .insert(PeerAddress(peer.parse().expect("an address")));
            }
            if let Some(header) = header {
                let name = http::HeaderName::from_bytes(header.as_bytes()).expect("a header");
                request
                    .headers_mut()
                    .insert(name, http::HeaderValue::from_static("203.0.113.4"));
            }
            assert_eq!(is_from_this_machine(&request), expected, "{peer:?} {header:?}");
        };
        check(Some("127.0.0.1"), None, true);
        check(Some("::1"), None, true);
        check(None, None, true);
        check(Some("203.0.113.4"), None, false);
        check(Some("127.0.0.1"), Some("x-forwarded-for"), false);
        check(Some("127.0.0.1"), Some("forwarded"), false);
    }
}
