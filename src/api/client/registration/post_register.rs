//! POST /_matrix/client/v3/register — Client-Server API, "Legacy API: account registration".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::config::RegistrationMode;
use hearth_core::error::MatrixError;
use hearth_users::{Completed, NewAccount, Stage, UiaRequest, User};
use http::HeaderMap;
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::client::session::{Device, logged_in};
use crate::client::uia;
use crate::error::Result;
use crate::extract::{Address, AppserviceToken, Json, Query};
use crate::ratelimit::Class;

/// The query.
#[derive(Deserialize)]
pub struct Kind {
    #[serde(default)]
    kind: AccountKind,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AccountKind {
    #[default]
    User,
    Guest,
}

/// The request's body, without `auth`.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    kind: Option<String>,
    username: Option<String>,
    password: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    inhibit_login: Option<bool>,
    refresh_token: Option<bool>,
}

/// Makes an account and, unless the client says otherwise, its first session.
pub async fn post_register(
    State(app): State<Arc<App>>,
    address: Address,
    Query(Kind { kind }): Query<Kind>,
    appservice: AppserviceToken,
    headers: HeaderMap,
    Json(mut raw): Json<Map<String, Value>>,
) -> Result<Json<Map<String, Value>>> {
    if matches!(kind, AccountKind::Guest) {
        return Err(MatrixError::forbidden("This server has no guest accounts").into());
    }
    let mut body: Body = uia::read(raw.clone())?;
    let user = if body.kind.as_deref() == Some("m.login.application_service") {
        for_appservice(&app, &appservice, &body).await?
    } else {
        app.limits.address(Class::Registration, address.0)?;
        if super::is_closed(&app) {
            return Err(MatrixError::forbidden("Registration is closed on this server").into());
        }
        check(&app, &body)?;
        let completed = authenticate(&app, &mut raw).await?;
        // A client may send its parameters only with the first request; the session kept them.
        body = uia::read(completed.body.clone())?;
        make(&app, &mut body, completed).await?
    };
    if body.inhibit_login.unwrap_or(false) {
        let user_id = ("user_id".to_owned(), user.id().as_str().into());
        let home_server = ("home_server".to_owned(), app.server_name.as_str().into());
        return Ok(Json(Map::from_iter([user_id, home_server])));
    }
    let device = Device {
        id: body.device_id,
        display_name: body.initial_device_display_name,
        refreshable: body.refresh_token.unwrap_or(false),
    };
    Ok(Json(logged_in(&app, &user, device, address, &headers).await?))
}

/// Refuses what is wrong before a person goes through the stages.
fn check(app: &Arc<App>, body: &Body) -> Result<()> {
    if let Some(username) = &body.username {
        super::free_name(app, username)?;
    }
    if let Some(password) = &body.password {
        app.users.check_password_rules(password)?;
    }
    Ok(())
}

async fn authenticate(app: &Arc<App>, body: &mut Map<String, Value>) -> Result<Completed> {
    let mut last = match app.config.registration {
        RegistrationMode::Token => Stage::RegistrationToken,
        _ => Stage::Dummy,
    };
    // A token of the configuration is not counted. It is the last stage, so it can be taken here, as
    // if nothing more were asked.
    if last == Stage::RegistrationToken && gives_configured_token(app, body) {
        last = Stage::Dummy;
        body["auth"]["type"] = last.name().into();
    }
    let flow = match app.config.terms.is_empty() {
        true => vec![last],
        false => vec![Stage::Terms, last],
    };
    let request = UiaRequest {
        user: None,
        method: "POST",
        path: "/register",
        body,
        bind_body: false,
        flows: &[flow],
        params: params(app),
    };
    uia::authenticate(app, request).await
}

fn gives_configured_token(app: &App, body: &Map<String, Value>) -> bool {
    let auth = body.get("auth").and_then(Value::as_object);
    let of = |key: &str| auth.and_then(|auth| auth.get(key)).and_then(Value::as_str);
    of("type") == Some(Stage::RegistrationToken.name())
        && of("token").is_some_and(|token| super::is_configured_token(app, token))
}

/// The policies that a person must accept, in the form of the stage `m.login.terms`.
fn params(app: &App) -> Value {
    if app.config.terms.is_empty() {
        return json!({});
    }
    let mut policies = Map::new();
    for policy in &app.config.terms {
        let text = json!({ "name": policy.name, "url": policy.url });
        // The same policy in several languages is listed once for each.
        let entry = policies
            .entry(&policy.id)
            .or_insert_with(|| json!({ "version": policy.version }));
        entry[policy.language.as_str()] = text;
    }
    json!({ "m.login.terms": { "policies": policies } })
}

async fn make(app: &Arc<App>, body: &mut Body, completed: Completed) -> Result<User> {
    let Some(password) = body.password.take() else {
        return Err(MatrixError::missing_param("The field `password` is missing").into());
    };
    app.users.check_password_rules(&password)?;
    let username = body
        .username
        .take()
        .unwrap_or_else(|| app.users.generate_localpart());
    let id = super::free_name(app, &username)?;
    let new = NewAccount {
        password: Some(password),
        ..NewAccount::default()
    };
    Ok(match completed.registration_token {
        Some(token) => app.users.create_with_token(&id, new, token).await?,
        None => app.users.create(&id, new).await?,
    })
}

async fn for_appservice(app: &Arc<App>, token: &AppserviceToken, body: &Body) -> Result<User> {
    let appservice = token.registration(app)?;
    let Some(username) = &body.username else {
        return Err(MatrixError::missing_param("The field `username` is missing").into());
    };
    let id = super::user_id(app, username)?;
    app.users.check_available(&id)?;
    app.appservices.check_user(Some(&appservice), &id)?;
    let new = NewAccount {
        appservice: Some(appservice.id.clone()),
        ..NewAccount::default()
    };
    Ok(app.users.create(&id, new).await?)
}
