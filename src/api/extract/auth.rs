//! Who makes a request.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath};
use hearth_appservice::Registration;
use hearth_core::config::Who;
use hearth_core::error::{MatrixError, errcode};
use hearth_users::{Account, Session, User};
use http::header::{AUTHORIZATION, USER_AGENT};
use http::request::Parts;
use http::{Method, StatusCode};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::{Address, guest};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::ratelimit::Class;

/// The user and device that make the request. Refuses requests without a good access token, and
/// those of locked accounts; counts the request against the user's limits of reading or writing.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The user; for an application service the one that it acts as.
    pub user: OwnedUserId,
    /// The device; an application service may act without one.
    pub device: Option<OwnedDeviceId>,
    /// The application service, if the token is its own.
    pub appservice: Option<Arc<Registration>>,
    /// The user's handle.
    pub handle: User,
    /// The account as it was when the request came.
    pub account: Arc<Account>,
}

/// As [`Auth`], but also for locked accounts: they may still log out.
#[derive(Clone, Debug)]
pub struct AuthEvenIfLocked(pub Auth);

/// As [`Auth`] where a token was sent; a request without one goes through as nobody's.
#[derive(Clone, Debug)]
pub struct OptionalAuth(pub Option<Auth>);

/// What needs no authentication: a token is not asked for, and one that is no good (any more) does not matter. The
/// request counts against the limits of its user, or of its address.
#[derive(Clone, Copy, Debug)]
pub struct Anybody;

impl Auth {
    /// Refuses unless the user named in the path is the one who asks.
    pub fn must_be(&self, user: &UserId) -> Result<(), MatrixError> {
        if self.user == user {
            return Ok(());
        }
        Err(MatrixError::forbidden("This is only for the user it belongs to"))
    }

    /// Refuses if the account is suspended: for actions that others see.
    pub fn must_not_be_suspended(&self) -> Result<(), MatrixError> {
        if !self.account.suspended {
            return Ok(());
        }
        let sentence = "You cannot perform this action while suspended.";
        Err(MatrixError::new(403, errcode::USER_SUSPENDED, sentence))
    }

    /// Refuses unless the user is an administrator.
    pub fn must_be_admin(&self, app: &App) -> Result<(), MatrixError> {
        if self.is_admin(app) {
            return Ok(());
        }
        Err(MatrixError::forbidden("You are not a server administrator"))
    }

    /// Refuses what the configuration keeps for administrators. Application services may: the operator
    /// registered them.
    pub fn must_be_among(&self, app: &App, who: Who) -> Result<(), MatrixError> {
        if who == Who::Everyone || self.appservice.is_some() || self.is_admin(app) {
            return Ok(());
        }
        Err(MatrixError::forbidden(
            "On this server only administrators may do this",
        ))
    }

    /// Whether the user is an administrator, by his account or by the configuration.
    pub fn is_admin(&self, app: &App) -> bool {
        app.is_admin(&self.user, &self.account)
    }

    /// The device; M_UNKNOWN_DEVICE where an application service acts without one.
    pub fn device(&self) -> Result<&DeviceId, MatrixError> {
        self.device.as_deref().ok_or_else(|| {
            MatrixError::new(
                400,
                errcode::UNKNOWN_DEVICE,
                "This needs a device: log in, or send device_id",
            )
        })
    }

    /// The user does something that shows that somebody is there (client-server API, "Presence: last active ago"): sends,
    /// types or reads. What an application service does without a device says nothing of a person.
    pub fn acts(&self, app: &App) {
        if let Some(device) = &self.device {
            app.users.presence().active(&self.user, device);
        }
    }

    /// Counts the request against the user's limit of this class, unless he is exempt.
    pub fn count(&self, app: &App, class: Class) -> Result<(), MatrixError> {
        if !app.limits.on() || self.is_exempt(app) {
            return Ok(());
        }
        app.limits.user(class, &self.user)
    }

    fn is_exempt(&self, app: &App) -> bool {
        match &self.appservice {
            Some(appservice) => !appservice.limits(&self.user),
            None => self.is_admin(app),
        }
    }
}

impl FromRequestParts<Arc<App>> for AuthEvenIfLocked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let auth = authenticate(parts, app, false)
            .await?
            .ok_or_else(MatrixError::missing_token)?;
        Ok(Self(auth))
    }
}

impl FromRequestParts<Arc<App>> for Auth {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let AuthEvenIfLocked(auth) = AuthEvenIfLocked::from_request_parts(parts, app).await?;
        unlocked(auth)
    }
}

impl FromRequestParts<Arc<App>> for OptionalAuth {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let auth = authenticate(parts, app, true).await?;
        Ok(Self(auth.map(unlocked).transpose()?))
    }
}

impl FromRequestParts<Arc<App>> for Anybody {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        match authenticate(parts, app, true).await {
            Err(error) if error.status() == StatusCode::TOO_MANY_REQUESTS => Err(error),
            _ => Ok(Self),
        }
    }
}

/// The token of a request that only an application service may make: its registration is looked up
/// when the handler knows that it needs one.
#[derive(Clone)]
pub struct AppserviceToken(Option<String>);

impl AppserviceToken {
    /// The application service; M_MISSING_TOKEN or M_UNKNOWN_TOKEN if it is none.
    pub fn registration(&self, app: &App) -> Result<Arc<Registration>, MatrixError> {
        let token = self.0.as_deref().ok_or_else(MatrixError::missing_token)?;
        let known = app.appservices.by_token(token).cloned();
        let sentence = "This is not the token of an application service";
        known.ok_or_else(|| MatrixError::unknown_token(sentence, false))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AppserviceToken {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(access_token(parts).unwrap_or_default()))
    }
}

fn unlocked(auth: Auth) -> Result<Auth> {
    if !auth.account.locked {
        return Ok(auth);
    }
    let sentence = "This account has been locked";
    Err(MatrixError::new(401, errcode::USER_LOCKED, sentence)
        .with("soft_logout", true)
        .into())
}

/// Who the token belongs to; `None` without a token. What is `open_to_nobodies` is open to guests too.
async fn authenticate(parts: &mut Parts, app: &Arc<App>, open_to_nobodies: bool) -> Result<Option<Auth>> {
    let Address(address) = match Address::from_request_parts(parts, app).await {
        Ok(address) => address,
        Err(never) => match never {},
    };
    let class = match parts.method {
        Method::GET | Method::HEAD => Class::Read,
        _ => Class::Write,
    };
    let Some(token) = access_token(parts)? else {
        app.limits.address(class, address)?;
        return Ok(None);
    };
    let auth = match app.appservices.by_token(&token) {
        Some(appservice) => Box::pin(as_appservice(parts, app, appservice.clone())).await?,
        None => match app.users.authenticate(&token).await {
            Ok(session) => of_session(session, parts, address),
            Err(error) => {
                // Guessing tokens counts against the address that guesses.
                app.limits.address(class, address)?;
                return Err(error.into());
            }
        },
    };
    if auth.account.guest {
        check_guest(parts, app, open_to_nobodies)?;
    }
    auth.count(app, class)?;
    Ok(Some(auth))
}

/// Refuses what guests may not do, and all of it where the server takes no guests (any more).
fn check_guest(parts: &Parts, app: &App, open_to_nobodies: bool) -> Result<(), MatrixError> {
    if !app.config.guests {
        return Err(guest::refusal("This server takes no guests"));
    }
    if open_to_nobodies {
        return Ok(());
    }
    let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    guest::check(&parts.method, route.unwrap_or_default(), parts.uri.path())
}

fn of_session(session: Session, parts: &Parts, address: Option<IpAddr>) -> Auth {
    let user_agent = parts
        .headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok());
    session.seen(address, user_agent);
    Auth {
        user: session.user.id().to_owned(),
        device: Some(session.device_id),
        appservice: None,
        handle: session.user,
        account: session.account,
    }
}

/// An application service acts as itself or, by `?user_id`, as one of its users.
async fn as_appservice(parts: &Parts, app: &App, appservice: Arc<Registration>) -> Result<Auth> {
    let query = parts.uri.query().unwrap_or_default();
    let user = match query_value(query, "user_id") {
        Some(text) => UserId::parse(text)
            .map_err(|error| MatrixError::invalid_param(format!("user_id is not a user id: {error}")))?,
        None => appservice.sender.clone(),
    };
    if !appservice.controls_user(&user) {
        let sentence = "The application service may not act as this user";
        return Err(MatrixError::forbidden(sentence).into());
    }
    let handle = match app.users.get(&user)? {
        Some(handle) => handle,
        None if user == appservice.sender => app.make_appservice_sender(&appservice).await?,
        None => {
            let sentence = "The application service has not registered this user";
            return Err(MatrixError::forbidden(sentence).into());
        }
    };
    // Bridges that have been running for long send the name that it had in the proposal (MSC3202).
    let device = query_value(query, "device_id")
        .or_else(|| query_value(query, "org.matrix.msc3202.device_id"))
        .map(OwnedDeviceId::from);
    if let Some(device) = &device
        && handle.device(device)?.is_none()
    {
        let sentence = "The user has no such device";
        return Err(MatrixError::new(400, errcode::UNKNOWN_DEVICE, sentence).into());
    }
    let account = handle.account()?;
    if account.deactivated {
        let sentence = "The user is deactivated";
        return Err(MatrixError::new(403, errcode::USER_DEACTIVATED, sentence).into());
    }
    Ok(Auth {
        user,
        device,
        appservice: Some(appservice),
        handle,
        account,
    })
}

/// The token of the Authorization header or, as old clients send it, of the query.
fn access_token(parts: &Parts) -> Result<Option<String>, MatrixError> {
    if let Some(header) = parts.headers.get(AUTHORIZATION) {
        let text = header.to_str().ok().and_then(|text| text.split_once(' '));
        return match text {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Ok(Some(token.trim().to_owned()).filter(|token| !token.is_empty()))
            }
            // Other servers sign what they ask, also at the old media addresses, which are open to nobodies.
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("x-matrix") => Ok(None),
            _ => Err(MatrixError::missing_token()),
        };
    }
    let token = query_value(parts.uri.query().unwrap_or_default(), "access_token");
    Ok(token.filter(|token| !token.is_empty()))
}

fn query_value(query: &str, name: &str) -> Option<String> {
    // Most queries have no such parameter; they need no parsing.
    if !query.contains(name) {
        return None;
    }
    let pairs: Vec<(String, String)> = serde_html_form::from_str(query).ok()?;
    pairs
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn access_tokens() {
        let check = |header: Option<&str>, query: &str, expected: Result<Option<&str>, &str>| {
            let mut request = Request::builder().uri(format!("/path?{query}"));
            if let Some(header) = header {
                request = request.header(AUTHORIZATION, header);
            }
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            let got = access_token(&parts);
            let got = got.as_ref().map(Option::as_deref).map_err(|error| error.errcode);
            assert_eq!(got, expected, "{header:?} {query}");
        };
        check(None, "", Ok(None));
        check(Some("Bearer abc"), "", Ok(Some("abc")));
        check(Some("bearer abc"), "", Ok(Some("abc")));
        check(Some("Bearer "), "", Ok(None));
        check(Some("Basic abc"), "", Err("M_MISSING_TOKEN"));
        check(Some("abc"), "", Err("M_MISSING_TOKEN"));
        check(Some("X-Matrix origin=\"hs2\",key=\"k\",sig=\"s\""), "", Ok(None));
        check(None, "access_token=abc", Ok(Some("abc")));
        check(None, "access_token=", Ok(None));
        check(None, "a=1&access_token=a%20b&user_id=c", Ok(Some("a b")));
        check(None, "my_access_token=abc", Ok(None));
        check(Some("Bearer abc"), "access_token=def", Ok(Some("abc")));
    }
}
