//! POST /_matrix/client/v3/login — Client-Server API, "Legacy API: login".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_users::User;
use http::HeaderMap;
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::answer::{Device, logged_in};
use crate::app::App;
use crate::client::uia::Identifier;
use crate::error::Result;
use crate::extract::{Address, AppserviceToken, Json, or_default};
use crate::ratelimit::Class;

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    #[serde(rename = "type")]
    kind: String,
    identifier: Option<Identifier>,
    /// Deprecated: the same as an identifier of type `m.id.user`.
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    refresh_token: bool,
}

/// Begins a session.
pub async fn post_login(
    State(app): State<Arc<App>>,
    address: Address,
    appservice: AppserviceToken,
    headers: HeaderMap,
    Json(body): Json<Body>,
) -> Result<Json<Map<String, Value>>> {
    let user = match body.kind.as_str() {
        "m.login.password" => by_password(&app, address, &body).await?,
        "m.login.token" => by_token(&app, address, &body).await?,
        "m.login.application_service" => by_appservice(&app, &appservice, &body).await?,
        _ => return Err(MatrixError::unknown("There is no such login type").into()),
    };
    let device = Device {
        id: body.device_id,
        display_name: body.initial_device_display_name,
        refreshable: body.refresh_token,
    };
    Ok(Json(logged_in(&app, &user, device, address, &headers).await?))
}

async fn by_password(app: &App, address: Address, body: &Body) -> Result<User> {
    app.limits.address(Class::Login, address.0)?;
    let Some(password) = &body.password else {
        return Err(MatrixError::missing_param("The field `password` is missing").into());
    };
    // A name that cannot exist is answered like one that does not.
    let wrong = || MatrixError::forbidden("Wrong user name or password");
    let user = app
        .local_user_id(name(body)?.ok_or_else(wrong)?)
        .map_err(|_| wrong())?;
    app.limits.user(Class::Login, &user)?;
    Ok(app.users.check_password(&user, password).await?)
}

async fn by_token(app: &App, address: Address, body: &Body) -> Result<User> {
    app.limits.address(Class::Login, address.0)?;
    let Some(token) = &body.token else {
        return Err(MatrixError::missing_param("The field `token` is missing").into());
    };
    Ok(app.users.redeem_login_token(token).await?)
}

async fn by_appservice(app: &App, token: &AppserviceToken, body: &Body) -> Result<User> {
    let appservice = token.registration(app)?;
    let wrong = || MatrixError::forbidden("There is no such user");
    let user = app.local_user_id(name(body)?.ok_or_else(wrong)?)?;
    app.appservices.check_user(Some(&appservice), &user)?;
    match app.has_user(&user).await? {
        true => app.user(&user),
        false => Err(wrong().into()),
    }
}

/// The user name that the body has in one of its forms; `None` for an email address or a phone
/// number, which no account here has.
fn name(body: &Body) -> Result<Option<&str>, MatrixError> {
    match (&body.identifier, &body.user) {
        (Some(identifier), _) => identifier.user(),
        (None, Some(user)) => Ok(Some(user)),
        (None, None) => Err(MatrixError::missing_param("The field `identifier` is missing")),
    }
}
