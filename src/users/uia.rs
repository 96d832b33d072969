//! User-interactive authentication (spec: client-server API, "User-Interactive Authentication API").
//!
//! Sessions live in memory. One is bound to the method, the path and, where the caller says so, the body that began
//! it; it remembers the stages that were completed, and the body for clients that send it only once.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_core::random::alphanumeric;
use hearth_core::{SharedClock, SharedRandom, limits};
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::registration::PendingUse;
use crate::user::{User, Users};

/// A stage of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// `m.login.dummy`: nothing to show.
    Dummy,
    /// `m.login.password`: the password of the user who makes the request.
    Password,
    /// `m.login.registration_token`.
    RegistrationToken,
    /// `m.login.terms`: agreed to the terms of service.
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

    fn parse(name: &str) -> Option<Self> {
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

struct UiaSession {
    user: Option<OwnedUserId>,
    method: String,
    path: String,
    body: Map<String, Value>,
    completed: Vec<Stage>,
    registration_token: Option<PendingUse>,
    expires_at: u64,
    /// About how much memory the body and the path take.
    body_bytes: usize,
}

#[derive(Default)]
struct Sessions {
    by_id: BTreeMap<String, UiaSession>,
    /// The bodies of all sessions.
    bytes: usize,
    /// Sessions by their end. An entry may be stale.
    by_end: BTreeMap<(u64, String), ()>,
}

/// The sessions of user-interactive authentication.
pub struct Uia {
    clock: SharedClock,
    random: SharedRandom,
    sessions: Arc<Mutex<Sessions>>,
}

/// How many characters a session id has.
const SESSION_CHARS: usize = 24;

/// The largest body that a session remembers; larger requests must send it again.
const REMEMBERED_BODY_MAX_BYTES: usize = 64 << 10;

/// What the sessions remember together; beyond it the oldest give way. Anybody can begin a session, so this is what bounds
/// the memory that strangers take.
const REMEMBERED_MAX_BYTES: usize = 32 << 20;

impl Uia {
    pub(crate) fn new(clock: SharedClock, random: SharedRandom) -> Self {
        Self {
            clock,
            random,
            sessions: Arc::default(),
        }
    }

    /// Begins, continues or completes the authentication of a request, as its `auth` says.
    pub async fn check(&self, users: &Arc<Users>, request: UiaRequest<'_>) -> Result<UiaOutcome> {
        let auth = match request.body.get("auth") {
            Some(Value::Object(auth)) => auth,
            None | Some(Value::Null) => return Ok(UiaOutcome::Challenge(self.begin(&request, None))),
            Some(_) => return Err(Error::InvalidParam("auth must be an object")),
        };
        let id = match auth.get("session").and_then(Value::as_str) {
            Some(id) => id.to_owned(),
            // A client that knows what is asked may begin and complete in one request.
            None if auth.contains_key("type") => self.open(&request),
            None => return Ok(UiaOutcome::Challenge(self.begin(&request, None))),
        };
        if let Err(refusal) = self.resume(&id, &request)? {
            return Ok(UiaOutcome::Challenge(self.begin(&request, Some(refusal))));
        }
        let refusal = match auth.get("type") {
            Some(Value::String(kind)) => self.attempt(users, &id, &request, kind, auth).await?,
            Some(_) => return Err(Error::InvalidParam("type must be a string")),
            None => None,
        };
        Ok(self.outcome(&id, &request, refusal))
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.lock().by_id.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Completes a stage that needs no secret, for the fallback pages; says whether the session exists.
    pub fn complete_by_page(&self, session: &str, stage: Stage) -> bool {
        let may = matches!(stage, Stage::Dummy | Stage::Terms);
        may && self.with(session, |session| session.complete(stage)).is_some()
    }

    fn begin(&self, request: &UiaRequest<'_>, refusal: Option<Refusal>) -> Value {
        let id = self.open(request);
        challenge(&id, request, &[], refusal)
    }

    fn open(&self, request: &UiaRequest<'_>) -> String {
        let id = alphanumeric(self.random.as_ref(), SESSION_CHARS);
        let now = self.clock.now_ms();
        let expires_at = now + limits::UIA_SESSION_LIFETIME.as_millis() as u64;
        let (body, body_bytes) = remembered(request);
        let session = UiaSession {
            user: request.user.map(|user| user.id().to_owned()),
            method: request.method.to_owned(),
            path: request.path.to_owned(),
            body,
            completed: Vec::new(),
            registration_token: None,
            expires_at,
            body_bytes,
        };
        let mut sessions = self.sessions.lock();
        sessions.bytes += body_bytes;
        sessions.clean(now);
        sessions.by_end.insert((expires_at, id.clone()), ());
        sessions.by_id.insert(id.clone(), session);
        id
    }

    /// Checks that the session exists and that this is its request.
    fn resume(&self, id: &str, request: &UiaRequest<'_>) -> Result<std::result::Result<(), Refusal>> {
        let now = self.clock.now_ms();
        let (body, body_bytes) = remembered(request);
        let mut sessions = self.sessions.lock();
        let Sessions { by_id, bytes, .. } = &mut *sessions;
        let resume = |session: &mut UiaSession| {
            if session.expires_at <= now || session.user.as_deref() != request.user.map(User::id) {
                return Ok(Err(Refusal::unknown_session()));
            }
            if session.method != request.method || session.path != request.path {
                return Err(Error::RequestChanged);
            }
            if body.is_empty() {
                return Ok(Ok(()));
            }
            if request.bind_body && !session.body.is_empty() && session.body != body {
                return Err(Error::RequestChanged);
            }
            session.body = body;
            *bytes = *bytes + body_bytes - std::mem::replace(&mut session.body_bytes, body_bytes);
            Ok(Ok(()))
        };
        let resumed = by_id.get_mut(id).map(resume);
        sessions.clean(now);
        resumed.unwrap_or(Ok(Err(Refusal::unknown_session())))
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
        let is_next = request
            .flows
            .iter()
            .any(|flow| flow.starts_with(&completed) && flow.get(completed.len()) == Some(&stage));
        if !is_next {
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
        let named = match named_user(auth) {
            Some(name) if name.starts_with('@') => UserId::parse(name).ok(),
            Some(name) => UserId::parse_with_server_name(name, &users.settings.server_name).ok(),
            None => return Err(Error::InvalidParam("identifier must name the user")),
        };
        let is_self = named.is_some_and(|id| id == user.id());
        Ok(is_self && user.verify_password(password).await?)
    }

    fn outcome(&self, id: &str, request: &UiaRequest<'_>, refusal: Option<Refusal>) -> UiaOutcome {
        let mut sessions = self.sessions.lock();
        let Some(completed) = sessions.by_id.get(id).map(|session| session.completed.clone()) else {
            drop(sessions);
            return UiaOutcome::Challenge(self.begin(request, Some(Refusal::unknown_session())));
        };
        let is_done = refusal.is_none() && request.flows.contains(&completed);
        if is_done && let Some(session) = sessions.remove(id) {
            let (stages, body) = (session.completed, session.body);
            return UiaOutcome::Complete(Completed {
                stages,
                body,
                registration_token: session.registration_token,
            });
        }
        UiaOutcome::Challenge(challenge(id, request, &completed, refusal))
    }

    fn with<T>(&self, id: &str, f: impl FnOnce(&mut UiaSession) -> T) -> Option<T> {
        self.sessions.lock().by_id.get_mut(id).map(f)
    }
}

impl UiaSession {
    fn complete(&mut self, stage: Stage) {
        if !self.completed.contains(&stage) {
            self.completed.push(stage);
        }
    }
}

impl Sessions {
    /// Removes sessions that have ended, and the oldest beyond the limit.
    fn clean(&mut self, now: u64) {
        while let Some(((end, _), ())) = self.by_end.first_key_value() {
            let fits = self.by_id.len() < limits::UIA_SESSIONS_MAX && self.bytes <= REMEMBERED_MAX_BYTES;
            if *end > now && fits {
                break;
            }
            if let Some(((_, id), ())) = self.by_end.pop_first() {
                self.remove(&id);
            }
        }
    }

    fn remove(&mut self, id: &str) -> Option<UiaSession> {
        let session = self.by_id.remove(id)?;
        self.bytes -= session.body_bytes;
        Some(session)
    }
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
    if !completed.is_empty() {
        body["completed"] = json!(names(completed));
    }
    if let Some(refusal) = refusal {
        body["errcode"] = refusal.errcode.into();
        body["error"] = refusal.error.into();
    }
    body
}

/// The request's parameters, if they are small enough to be kept, and about how much memory they take.
fn remembered(request: &UiaRequest<'_>) -> (Map<String, Value>, usize) {
    let mut body = request.body.clone();
    body.remove("auth");
    let bytes = serde_json::to_vec(&body).map_or(usize::MAX, |bytes| bytes.len());
    match bytes > REMEMBERED_BODY_MAX_BYTES {
        true => (Map::new(), request.path.len()),
        // As a tree, small values take several times their text.
        false => (body, 4 * bytes + request.path.len()),
    }
}

/// The user named by `identifier`, or by the older `user`.
fn named_user(auth: &Map<String, Value>) -> Option<&str> {
    let identifier = auth.get("identifier").and_then(Value::as_object);
    let by_identifier = identifier
        .filter(|identifier| identifier.get("type").and_then(Value::as_str) == Some("m.id.user"))
        .and_then(|identifier| identifier.get("user"));
    by_identifier.or_else(|| auth.get("user")).and_then(Value::as_str)
}
