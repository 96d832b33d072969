//! User-interactive authentication as endpoints use it, and the identifiers of users in requests.

use std::sync::Arc;

use hearth_core::error::MatrixError;
use hearth_users::{Completed, Stage, UiaOutcome, UiaRequest};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::extract::Auth;
use crate::ratelimit::Class;

/// How a client names a user (Client-Server API, "Identifier types").
#[derive(Debug, Deserialize)]
pub struct Identifier {
    #[serde(rename = "type")]
    kind: String,
    user: Option<String>,
}

impl Identifier {
    /// The user name; `None` for an email address or a phone number, which no account here has.
    pub fn user(&self) -> Result<Option<&str>, MatrixError> {
        match self.kind.as_str() {
            "m.id.user" => {
                let missing = || MatrixError::missing_param("The identifier has no `user`");
                self.user.as_deref().map(Some).ok_or_else(missing)
            }
            "m.id.thirdparty" | "m.id.phone" => Ok(None),
            _ => Err(MatrixError::unknown("There is no such type of identifier")),
        }
    }
}

/// Makes sure of the user by his password before an action on his account, and gives the request's
/// body. `path` is the endpoint's path below the prefix, with its parameters.
pub async fn confirm_by_password<B: DeserializeOwned>(
    app: &Arc<App>,
    auth: &Auth,
    method: &str,
    path: &str,
    body: &Map<String, Value>,
) -> Result<B> {
    // An application service has no password; its own token vouches for the users that it controls.
    if auth.appservice.is_some() {
        return read(body.clone());
    }
    refuse_other_user(app, auth, body)?;
    // Every try at the password counts, whatever it is to confirm.
    if body
        .get("auth")
        .is_some_and(|auth| auth.get("password").is_some())
    {
        auth.count(app, Class::Login)?;
    }
    let request = UiaRequest {
        user: Some(&auth.handle),
        device: auth.device.as_deref(),
        method,
        path,
        body,
        bind_body: true,
        flows: &[vec![Stage::Password]],
        params: json!({}),
    };
    read(authenticate(app, request).await?.body)
}

/// Runs the authentication of a request: what was completed, or the challenge as the refusal.
pub async fn authenticate(app: &Arc<App>, request: UiaRequest<'_>) -> Result<Completed> {
    match app.users.uia().check(&app.users, request).await? {
        UiaOutcome::Complete(completed) => Ok(completed),
        UiaOutcome::Challenge(Value::Object(body)) => Err(ApiError::Interactive(Box::new(body))),
        UiaOutcome::Challenge(_) => Err(ApiError::internal(&"a challenge that is no object")),
    }
}

/// Reads a body that was kept as a JSON object.
pub fn read<B: DeserializeOwned>(body: Map<String, Value>) -> Result<B> {
    let read = serde_json::from_value(Value::Object(body));
    Ok(read.map_err(|error| MatrixError::bad_json(error.to_string()))?)
}

/// Somebody else's password proves nothing here, even if it is right; so it is not a challenge to
/// be tried again but a refusal.
fn refuse_other_user(app: &App, auth: &Auth, body: &Map<String, Value>) -> Result<(), MatrixError> {
    let named = body.get("auth").and_then(|auth| auth.get("identifier"));
    let Some(name) = named
        .and_then(|identifier| identifier.get("user"))
        .and_then(Value::as_str)
    else {
        return Ok(());
    };
    match app.local_user_id(name) {
        Ok(user) if user == auth.user => Ok(()),
        _ => Err(MatrixError::forbidden(
            "The authentication is not of the user who makes the request",
        )),
    }
}
