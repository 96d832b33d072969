//! Pages for clients that cannot show a stage of an authentication, or a login, themselves — Client-Server API,
//! "Fallback" and "Login Fallback".

pub mod get_auth;
pub mod get_login;
pub mod post_auth;

use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hearth_core::html::escape;
use hearth_core::random::alphanumeric;
use hearth_users::{PageState, Stage};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let login = "/_matrix/static/client/login";
    Routes::new()
        .v3(
            "/auth/{authType}/fallback/web",
            get(get_auth::get_auth).post(post_auth::post_auth),
        )
        .at(login, get(get_login::get_login))
        .at(&format!("{login}/"), get(get_login::get_login))
}

/// What a page does when the stage is completed; the specification's words.
const DONE: &str = r#"if (window.onAuthDone) {
    window.onAuthDone();
} else if (window.opener && window.opener.postMessage) {
    window.opener.postMessage("authDone", "*");
}"#;

const STYLE: &str = ":root { color-scheme: light dark }
body { font: 17px/1.6 system-ui, sans-serif; max-width: 26em; margin: 10vh auto; padding: 0 1.2em }
h1 { font-size: 1.4em }
label, input, button { display: block; width: 100%; box-sizing: border-box; font: inherit }
input, button { margin: .3em 0 1em; padding: .5em }
.wrong { color: #c22 }";

/// A page. Only its own script runs, and no other page can show it as a part of itself.
fn page(app: &App, status: StatusCode, title: &str, content: &str, script: &str) -> Result<Response> {
    let nonce = alphanumeric(app.random.as_ref(), 24);
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).map_err(|error| ApiError::internal(&error))?;
    let script = match script {
        "" => String::new(),
        script => format!("<script nonce=\"{nonce}\">\n{script}\n</script>"),
    };
    let html = format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
{STYLE}
</style></head><body>
<h1>{title}</h1>
{content}
{script}
</body></html>
"#
    );
    // The address has the session's id, which nobody else must learn.
    let headers = [
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    Ok((status, headers, Html(html)).into_response())
}

/// The page of a stage in a state, with what was wrong with the last answer.
fn stage_page(app: &App, session: &str, stage: Stage, state: &PageState, wrong: &str) -> Result<Response> {
    let user = match state {
        PageState::Open(user) => user.as_deref(),
        PageState::Done => {
            let content = "<p>You can close this page and go back to your app.</p>";
            return page(app, StatusCode::OK, "Done", content, DONE);
        }
        PageState::Later => {
            let content = "<p>Another step comes before this one. Go back to your app.</p>";
            return page(app, StatusCode::CONFLICT, "Not yet", content, "");
        }
        PageState::Unknown => {
            let content = "<p>This page is not valid any more. Go back to your app and begin again.</p>";
            return page(app, StatusCode::NOT_FOUND, "Too late", content, "");
        }
    };
    let (title, question, button) = match stage {
        Stage::Dummy => ("Continue", String::new(), "Continue"),
        Stage::Terms => ("Terms of this server", terms(app), "I agree"),
        Stage::RegistrationToken => (
            "Registration token",
            "<label>This server gives accounts to people who have a registration token. Yours:\
             <input name=\"answer\" autocomplete=\"off\" required autofocus></label>"
                .to_owned(),
            "Continue",
        ),
        Stage::Password => (
            "Confirm that it is you",
            format!(
                "<label>The password of {}<input name=\"answer\" type=\"password\" \
                 autocomplete=\"current-password\" required autofocus></label>",
                escape(user.map_or("your account", |user| user.as_str()))
            ),
            "Continue",
        ),
    };
    let wrong = match wrong {
        "" => String::new(),
        wrong => format!("<p class=\"wrong\">{}</p>", escape(wrong)),
    };
    let content = format!(
        "<form method=\"post\">{wrong}<input type=\"hidden\" name=\"session\" value=\"{}\">{question}\
         <button>{button}</button></form>",
        escape(session)
    );
    page(app, StatusCode::OK, title, &content, "")
}

/// The policies of this server as a list of links.
fn terms(app: &App) -> String {
    let policies = app.config.terms.iter().map(|policy| {
        format!(
            "<li lang=\"{}\"><a href=\"{}\" target=\"_blank\" rel=\"noopener\">{}</a></li>",
            escape(&policy.language),
            escape(&policy.url),
            escape(&policy.name)
        )
    });
    format!(
        "<p>To have an account here you have to accept:</p><ul>{}</ul>",
        policies.collect::<String>()
    )
}
