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
    /// The token of a guest who becomes an ordinary user ("Guest Access").
    guest_access_token: Option<String>,
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
        return register_guest(&app, address, &headers, &raw).await;
    }
    let mut body: Body = uia::read(raw.clone())?;
    let user = if body.kind.as_deref() == Some("m.login.application_service") {
        for_appservice(&app, &appservice, &body).await?
    } else {
        // Clients ask once or twice what is to be done before a person does it; only what is done counts as a try.
        let class = match raw.contains_key("auth") {
            true => Class::Registration,
            false => Class::Write,
        };
        app.limits.address(class, address.0)?;
        if super::is_closed(&app) {
            return Err(MatrixError::forbidden("Registration is closed on this server").into());
        }
        let guest = guest_of(&app, &body).await?;
        check(&app, &body, guest.is_some())?;
        let completed = authenticate(&app, &mut raw).await?;
        // A client may send its parameters only with the first request; the session kept them.
        body = uia::read(completed.body.clone())?;
        // The session's parameters count, so the guest is looked up by them.
        match guest_of(&app, &body).await? {
            Some(guest) => upgrade(&app, guest, &mut body, completed).await?,
            None => make(&app, &mut body, completed).await?,
        }
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
fn check(app: &Arc<App>, body: &Body, is_guest: bool) -> Result<()> {
    if let Some(username) = body.username.as_ref().filter(|_| !is_guest) {
        super::free_name(app, username)?;
    }
    if let Some(password) = &body.password {
        app.users.check_password_rules(password)?;
    }
    Ok(())
}

/// Makes a guest. All of the body but the name of the device is left unread, as the specification has it.
async fn register_guest(
    app: &Arc<App>,
    address: Address,
    headers: &HeaderMap,
    body: &Map<String, Value>,
) -> Result<Json<Map<String, Value>>> {
    if !app.config.guests {
        return Err(MatrixError::forbidden("This server has no guest accounts").into());
    }
    app.limits.address(Class::Registration, address.0)?;
    let id = super::free_name(app, &format!("guest-{}", app.users.generate_localpart()))?;
    let new = NewAccount {
        guest: true,
        ..NewAccount::default()
    };
    let user = app.users.create(&id, new).await?;
    let name = body.get("initial_device_display_name").and_then(Value::as_str);
    let device = Device {
        display_name: name.map(str::to_owned),
        ..Device::default()
    };
    Ok(Json(logged_in(app, &user, device, address, headers).await?))
}

/// The guest whom a token in the body stands for; the name must be the guest's own.
async fn guest_of(app: &Arc<App>, body: &Body) -> Result<Option<User>> {
    let Some(token) = &body.guest_access_token else {
        return Ok(None);
    };
    let session = app.users.authenticate(token).await?;
    if !session.account.guest {
        return Err(MatrixError::forbidden("guest_access_token is not the token of a guest").into());
    }
    let username = body
        .username
        .as_deref()
        .ok_or_else(|| MatrixError::missing_param("A guest who registers must give the own `username`"))?;
    match super::user_id(app, username)? == session.user.id() {
        true => Ok(Some(session.user)),
        false => Err(MatrixError::invalid_username("A guest keeps the name when registering").into()),
    }
}

/// Makes the guest an ordinary user.
async fn upgrade(app: &Arc<App>, guest: User, body: &mut Body, completed: Completed) -> Result<User> {
    let Some(password) = body.password.take() else {
        return Err(MatrixError::missing_param("The field `password` is missing").into());
    };
    app.users.check_password_rules(&password)?;
    app.users
        .upgrade_guest(&guest, password, completed.registration_token)
        .await?;
    Ok(guest)
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
        device: None,
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
