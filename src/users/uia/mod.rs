//! User-interactive authentication (spec: client-server API, "User-Interactive Authentication API").
//!
//! A session is bound to the user and device, the method, the path and, where the caller says so, the body that began
//! it; it remembers the stages that were completed, and the body for clients that send it only once. It is stored before
//! its id is given out, so that a person who reads terms or looks for a password does not notice a restart.

mod page;
mod sessions;
mod store;

pub use page::{PageAnswer, PageOutcome, PageState};

use std::sync::Arc;

use hearth_core::{SharedClock, SharedRandom};
use hearth_storage::Log;
use parking_lot::Mutex;
use ruma::{DeviceId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::registration::PendingUse;
use crate::user::{User, Users};
use crate::write::Lanes;
use sessions::{Sessions, UiaSession};

/// A stage of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// `m.login.dummy`: nothing to show.
    #[serde(rename = "m.login.dummy")]
    Dummy,
    /// `m.login.password`: the password of the user who makes the request.
    #[serde(rename = "m.login.password")]
    Password,
    /// `m.login.registration_token`.
    #[serde(rename = "m.login.registration_token")]
    RegistrationToken,
    /// `m.login.terms`: agreed to the terms of service.
    #[serde(rename = "m.login.terms")]
    Terms,
}

impl Stage {
    /// The name in the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dummy => "m.login.dummy",
            Self::Password => "m.login.password",
            Self::RegistrationToken => "m.login.registration_token",
            Self::Terms => "m.login.terms",
        }
    }

    /// The stage of a name in the specification, if it is one of these.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Dummy, Self::Password, Self::RegistrationToken, Self::Terms]
            .into_iter()
            .find(|stage| stage.name() == name)
    }
}

/// A request that needs authentication.
#[derive(Clone, Debug)]
pub struct UiaRequest<'a> {
    /// Who makes it; nobody for a registration.
    pub user: Option<&'a User>,
    /// The device with which it is made; none for a registration.
    pub device: Option<&'a DeviceId>,
    /// The HTTP method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The body; its `auth` key is looked at here, the rest is the request.
    pub body: &'a Map<String, Value>,
    /// Whether the body must stay the same. A registration may gather its parameters over several requests.
    pub bind_body: bool,
    /// The ways to authenticate: each a list of stages in order.
    pub flows: &'a [Vec<Stage>],
    /// `params` of the challenge.
    pub params: Value,
}

/// What came of a request.
#[derive(Debug)]
pub enum UiaOutcome {
    /// Authenticated: carry the request out.
    Complete(Completed),
    /// Not yet: answer 401 with this body.
    Challenge(Value),
}

/// A completed authentication. Its session is used up.
#[derive(Debug)]
pub struct Completed {
    /// The stages that were completed.
    pub stages: Vec<Stage>,
    /// The body of the request without `auth`: that of the session where this request had none.
    pub body: Map<String, Value>,
    /// The registration token that was given, held for this registration.
    pub registration_token: Option<PendingUse>,
}

/// The sessions of user-interactive authentication.
pub struct Uia {
    clock: SharedClock,
    random: SharedRandom,
    log: Arc<Log>,
    lanes: Arc<Lanes>,
    sessions: Mutex<Sessions>,
}

/// The largest body that a session remembers; larger requests must send it again.
const REMEMBERED_BODY_MAX_BYTES: usize = 64 << 10;

impl Uia {
    pub(crate) fn new(log: Arc<Log>, lanes: Arc<Lanes>, clock: SharedClock, random: SharedRandom) -> Self {
        Self {
            clock,
            random,
            log,
            lanes,
            sessions: Mutex::default(),
        }
    }

    /// Begins, continues or completes the authentication of a request, as its `auth` says.
    pub async fn check(&self, users: &Arc<Users>, request: UiaRequest<'_>) -> Result<UiaOutcome> {
        let auth = match request.body.get("auth") {
            Some(Value::Object(auth)) => auth,
            None | Some(Value::Null) => return self.begin(&request, None).await,
            Some(_) => return Err(Error::InvalidParam("auth must be an object")),
        };
        let id = match auth.get("session").and_then(Value::as_str) {
            Some(id) => id.to_owned(),
            // A client that knows what is asked may begin and complete in one request.
            None if auth.contains_key("type") => self.open(&request),
            None => return self.begin(&request, None).await,
        };
        self.recall(users, &id)?;
        if let Err(refusal) = self.resume(&id, &request)? {
            return self.begin(&request, Some(refusal)).await;
        }
        let refusal = match auth.get("type") {
            Some(Value::String(kind)) => self.attempt(users, &id, &request, kind, auth).await?,
            Some(_) => return Err(Error::InvalidParam("type must be a string")),
            None => None,
        };
        self.outcome(&id, &request, refusal).await
    }

    /// How many sessions are in memory.
    pub fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether no session is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    async fn begin(&self, request: &UiaRequest<'_>, refusal: Option<Refusal>) -> Result<UiaOutcome> {
        let id = self.open(request);
        self.save(&id).await?;
        Ok(UiaOutcome::Challenge(challenge(&id, request, &[], refusal)))
    }

    fn open(&self, request: &UiaRequest<'_>) -> String {
        let now = self.clock.now_ms();
        let session = UiaSession::new(request, remembered(request), now);
        self.sessions.lock().add(self.random.as_ref(), session, now)
    }

    /// Checks that the session exists and that this is its request.
    fn resume(&self, id: &str, request: &UiaRequest<'_>) -> Result<std::result::Result<(), Refusal>> {
        let now = self.clock.now_ms();
        let body = remembered(request);
        let verdict = self.with(id, |session| {
            let is_its_own = session.user.as_deref() == request.user.map(User::id)
                && session.device.as_deref() == request.device;
            if !session.is_open(now) || !is_its_own {
                return Ok(Err(Refusal::unknown_session()));
            }
            if session.method != request.method || session.path != request.path {
                return Err(Error::RequestChanged);
            }
            let is_other = !body.is_empty() && session.body != body;
            if is_other && request.bind_body && !session.body.is_empty() {
                return Err(Error::RequestChanged);
            }
            Ok(Ok(is_other))
        });
        let verdict = verdict.unwrap_or(Ok(Err(Refusal::unknown_session())))?;
        if matches!(verdict, Ok(true)) {
            self.sessions.lock().remember(id, body, now);
        }
        Ok(verdict.map(|_| ()))
    }

    /// Tries one stage; what it refuses may be tried again.
    async fn attempt(
        &self,
        users: &Arc<Users>,
        id: &str,
        request: &UiaRequest<'_>,
        kind: &str,
        auth: &Map<String, Value>,
    ) -> Result<Option<Refusal>> {
        let completed = self
            .with(id, |session| session.completed.clone())
            .unwrap_or_default();
        let Some(stage) =
            Stage::parse(kind).filter(|stage| request.flows.iter().flatten().any(|other| other == stage))
        else {
            return Ok(Some(Refusal::new(
                "M_UNRECOGNIZED",
                "This authentication type is not offered",
            )));
        };
        if completed.contains(&stage) {
            return Ok(None);
        }
        if !is_next(request.flows, &completed, stage) {
            return Ok(Some(Refusal::new(
                "M_FORBIDDEN",
                "This stage comes later in its flow",
            )));
        }
        match stage {
            Stage::Dummy | Stage::Terms => {}
            Stage::Password => {
                let Some(password) = auth.get("password").and_then(Value::as_str) else {
                    return Err(Error::InvalidParam("password must be a string"));
                };
                if !self.password_matches(users, request, auth, password).await? {
                    return Ok(Some(Refusal::new("M_FORBIDDEN", "Invalid password")));
                }
            }
            Stage::RegistrationToken => {
                let Some(token) = auth.get("token").and_then(Value::as_str) else {
                    return Err(Error::InvalidParam("token must be a string"));
                };
                match users.registration_tokens().hold(token) {
                    Ok(held) => drop(self.with(id, |session| session.registration_token = Some(held))),
                    Err(Error::InvalidRegistrationToken) => {
                        return Ok(Some(Refusal::new(
                            "M_UNAUTHORIZED",
                            "The registration token is not valid",
                        )));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        self.with(id, |session| session.complete(stage));
        Ok(None)
    }

    async fn password_matches(
        &self,
        users: &Arc<Users>,
        request: &UiaRequest<'_>,
        auth: &Map<String, Value>,
        password: &str,
    ) -> Result<bool> {
        let Some(user) = request.user else {
            return Ok(false);
        };
        // A client that names nobody means the user whose request this is.
        let Some(name) = named_user(auth)?.map(str::to_lowercase) else {
            return user.verify_password(password).await;
        };
        let named = match name.starts_with('@') {
            true => UserId::parse(&name),
            false => UserId::parse_with_server_name(name.as_str(), &users.settings.server_name),
        };
        let is_self = named.is_ok_and(|id| id == user.id());
        Ok(is_self && user.verify_password(password).await?)
    }

    async fn outcome(
        &self,
        id: &str,
        request: &UiaRequest<'_>,
        refusal: Option<Refusal>,
    ) -> Result<UiaOutcome> {
        let Some(completed) = self.with(id, |session| session.completed.clone()) else {
            return self.begin(request, Some(Refusal::unknown_session())).await;
        };
        if refusal.is_none() && request.flows.contains(&completed) {
            return match self.finish(id).await? {
                Some(completed) => Ok(UiaOutcome::Complete(completed)),
                // Another request with the same session was quicker.
                None => self.begin(request, Some(Refusal::unknown_session())).await,
            };
        }
        self.save(id).await?;
        Ok(UiaOutcome::Challenge(challenge(id, request, &completed, refusal)))
    }

    fn with<T>(&self, id: &str, f: impl FnOnce(&mut UiaSession) -> T) -> Option<T> {
        self.sessions.lock().get_mut(id).map(f)
    }
}

/// Whether a stage comes right after what was completed, in one of the flows.
fn is_next(flows: &[Vec<Stage>], completed: &[Stage], stage: Stage) -> bool {
    flows
        .iter()
        .any(|flow| flow.starts_with(completed) && flow.get(completed.len()) == Some(&stage))
}

/// Why a stage was not completed.
struct Refusal {
    errcode: &'static str,
    error: &'static str,
}

impl Refusal {
    fn new(errcode: &'static str, error: &'static str) -> Self {
        Self { errcode, error }
    }

    fn unknown_session() -> Self {
        Self::new(
            "M_UNKNOWN",
            "The authentication session is unknown or has expired",
        )
    }
}

fn challenge(id: &str, request: &UiaRequest<'_>, completed: &[Stage], refusal: Option<Refusal>) -> Value {
    let names = |stages: &[Stage]| stages.iter().map(|stage| stage.name()).collect::<Vec<_>>();
    let flows: Vec<Value> = request
        .flows
        .iter()
        .map(|flow| json!({ "stages": names(flow) }))
        .collect();
    let mut body = json!({ "session": id, "flows": flows, "params": request.params });
    // After an attempt the stages are listed even if there are none, as the specification shows it.
    if !completed.is_empty() || refusal.is_some() {
        body["completed"] = json!(names(completed));
    }
    if let Some(refusal) = refusal {
        body["errcode"] = refusal.errcode.into();
        body["error"] = refusal.error.into();
    }
    body
}

/// The request's parameters, if they are small enough to be kept.
fn remembered(request: &UiaRequest<'_>) -> Map<String, Value> {
    let mut body = request.body.clone();
    body.remove("auth");
    let bytes = serde_json::to_vec(&body).map_or(usize::MAX, |bytes| bytes.len());
    if bytes > REMEMBERED_BODY_MAX_BYTES {
        Map::new()
    } else {
        body
    }
}

/// The user named by `identifier`, or by the older `user`.
fn named_user(auth: &Map<String, Value>) -> Result<Option<&str>> {
    let Some(identifier) = auth.get("identifier").and_then(Value::as_object) else {
        return Ok(auth.get("user").and_then(Value::as_str));
    };
    match identifier.get("type").and_then(Value::as_str) {
        Some("m.id.user") => Ok(identifier.get("user").and_then(Value::as_str)),
        Some("m.id.thirdparty" | "m.id.phone") => Err(Error::Forbidden(
            "No account here has this email address or phone number",
        )),
        _ => Err(Error::InvalidParam("There is no such type of identifier")),
    }
}
