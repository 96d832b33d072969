//! The one place where an error becomes an HTTP answer.
//!
//! Domain crates say what went wrong in their own words; the `From` impls here choose status and
//! errcode. Whatever a person must look at is logged here, once, at ERROR.

use axum::response::{IntoResponse, Response};
use hearth_core::Config;
use hearth_core::error::{MatrixError, errcode};
use hearth_federation::is_about_the_session;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value};

/// What a handler returns when it refuses.
#[derive(Debug)]
pub enum ApiError {
    /// The usual refusal: a status, an errcode and a sentence. Boxed, so that `Result` stays small.
    Matrix(Box<MatrixError>),
    /// User-interactive authentication asks for more: 401 with this body.
    Interactive(Box<Map<String, Value>>),
}

/// The result of a handler.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

impl ApiError {
    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Matrix(error) => {
                StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::Interactive(_) => StatusCode::UNAUTHORIZED,
        }
    }

    /// The Matrix error code, if there is one.
    pub fn errcode(&self) -> Option<&str> {
        match self {
            Self::Matrix(error) => Some(error.errcode),
            Self::Interactive(body) => body.get("errcode").and_then(Value::as_str),
        }
    }

    /// Something broke that the client cannot help. The cause goes to the log, not to the client.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed inside the server");
        MatrixError::internal("Something went wrong inside the server").into()
    }
}

impl From<MatrixError> for ApiError {
    fn from(error: MatrixError) -> Self {
        Self::Matrix(Box::new(error))
    }
}

impl From<hearth_users::Error> for ApiError {
    fn from(error: hearth_users::Error) -> Self {
        use hearth_users::Error;
        let sentence = error.to_string();
        match error {
            Error::UserInUse => MatrixError::user_in_use(sentence),
            Error::InvalidUsername(_) => MatrixError::invalid_username(sentence),
            Error::NotFound(_) => MatrixError::not_found(sentence),
            Error::UnknownToken { soft_logout } => MatrixError::unknown_token(sentence, soft_logout),
            Error::WrongPassword | Error::Forbidden(_) => MatrixError::forbidden(sentence),
            Error::InvalidRegistrationToken => MatrixError::forbidden(sentence),
            Error::RequestChanged => MatrixError::forbidden(sentence),
            Error::Locked => MatrixError::new(401, errcode::USER_LOCKED, sentence).with("soft_logout", true),
            Error::Deactivated => MatrixError::new(403, errcode::USER_DEACTIVATED, sentence),
            Error::WeakPassword(_) => MatrixError::new(400, errcode::WEAK_PASSWORD, sentence),
            Error::InvalidParam(_) => MatrixError::invalid_param(sentence),
            Error::BadJson(_) => MatrixError::bad_json(sentence),
            Error::ProfileTooLarge => MatrixError::new(400, errcode::PROFILE_TOO_LARGE, sentence),
            Error::KeyTooLarge => MatrixError::new(400, errcode::KEY_TOO_LARGE, sentence),
            Error::TooLarge(_) => MatrixError::too_large(sentence),
            Error::TooMany(_) => MatrixError::new(403, errcode::USER_LIMIT_EXCEEDED, sentence),
            Error::MissingParam(_) => MatrixError::missing_param(sentence),
            Error::InvalidSignature(_) => MatrixError::new(400, errcode::INVALID_SIGNATURE, sentence),
            Error::WrongBackupVersion(current) => {
                MatrixError::new(403, errcode::WRONG_ROOM_KEYS_VERSION, sentence)
                    .with("current_version", current)
            }
            Error::Storage(error) => return error.into(),
            Error::Internal(cause) => return Self::internal(&cause),
        }
        .into()
    }
}

impl From<hearth_media::Error> for ApiError {
    fn from(error: hearth_media::Error) -> Self {
        use hearth_media::Error;
        let sentence = error.to_string();
        match error {
            Error::NotFound => MatrixError::not_found(sentence),
            Error::NotYetUploaded => MatrixError::new(504, errcode::NOT_YET_UPLOADED, sentence),
            Error::AlreadyUploaded => MatrixError::new(409, errcode::CANNOT_OVERWRITE_MEDIA, sentence),
            Error::NotOwner | Error::NotAllowed(_) => MatrixError::forbidden(sentence),
            Error::TooLarge { .. } | Error::ImageTooLarge => MatrixError::too_large(sentence),
            Error::RemoteTooLarge { .. } | Error::RemoteImageTooLarge => {
                MatrixError::new(502, errcode::TOO_LARGE, sentence)
            }
            Error::PendingLimit { retry_after_ms } => MatrixError::limit_exceeded(retry_after_ms),
            Error::Invalid(_) => MatrixError::invalid_param(sentence),
            Error::NotAnImage | Error::Interrupted => MatrixError::unknown(sentence),
            Error::Remote(_) | Error::Page(_) => MatrixError::new(502, errcode::UNKNOWN, sentence),
            Error::Storage(error) => return error.into(),
            Error::Io(cause) => return Self::internal(&cause),
        }
        .into()
    }
}

impl From<hearth_search::Error> for ApiError {
    fn from(error: hearth_search::Error) -> Self {
        use hearth_search::Error;
        match error {
            Error::BadToken => MatrixError::invalid_param(error.to_string()).into(),
            Error::Storage(error) => error.into(),
            Error::Rooms(error) => error.into(),
            Error::Index(_) | Error::Io(_) | Error::Panicked => Self::internal(&error),
        }
    }
}

impl From<hearth_rooms::Error> for ApiError {
    fn from(error: hearth_rooms::Error) -> Self {
        use hearth_rooms::Error;
        let sentence = error.to_string();
        let bad_request = |errcode| MatrixError::new(400, errcode, sentence.as_str());
        match error {
            Error::Forbidden(_) => MatrixError::forbidden(sentence),
            Error::NotFound(_) => MatrixError::not_found(sentence),
            Error::Invalid(_) => MatrixError::bad_json(sentence),
            Error::InvalidParam(_) => MatrixError::invalid_param(sentence),
            Error::TooLarge(_) => MatrixError::too_large(sentence),
            Error::UnsupportedVersion(_) => MatrixError::unsupported_room_version(sentence),
            Error::IncompatibleVersion(ref version) => {
                bad_request(errcode::INCOMPATIBLE_ROOM_VERSION).with("room_version", version.as_str())
            }
            Error::InvalidRoomState(_) => bad_request(errcode::INVALID_ROOM_STATE),
            Error::AliasInUse(_) => MatrixError::room_in_use(sentence),
            Error::BadAlias(_) => bad_request(errcode::BAD_ALIAS),
            Error::DuplicateAnnotation => bad_request(errcode::DUPLICATE_ANNOTATION),
            Error::BadState(_) => MatrixError::new(403, errcode::BAD_STATE, sentence),
            Error::UnableToAuthorizeJoin(_) => bad_request(errcode::UNABLE_TO_AUTHORISE_JOIN),
            Error::BadEvent(_) | Error::MissingAuth(_) | Error::MissingKey(_) => {
                MatrixError::bad_json(sentence)
            }
            Error::Remote(failure) => return failure.into(),
            Error::Policy(failure) => return policy_refusal(failure),
            Error::UnableToGrantJoin(_) => bad_request(errcode::UNABLE_TO_GRANT_JOIN),
            Error::Damaged(_) => return Self::internal(&sentence),
            Error::Storage(error) => return error.into(),
            Error::Event(error) => return error.into(),
        }
        .into()
    }
}

impl From<hearth_federation::ClientError> for ApiError {
    fn from(error: hearth_federation::ClientError) -> Self {
        error.to_matrix().into()
    }
}

/// With what a policy server refuses (server-server API, `POST /_matrix/policy/v1/sign`).
const POLICY_STATUSES: [u16; 4] = [400, 403, 404, 429];

/// The error of a policy server is given to the client word for word (server-server API, "Validating Policy Server
/// signatures").
fn policy_refusal(failure: hearth_rooms::RemoteFailure) -> ApiError {
    use hearth_rooms::RemoteFailure;
    match failure {
        RemoteFailure::Refused {
            status,
            errcode,
            message,
            body,
            ..
        } if POLICY_STATUSES.contains(&status) && !is_about_the_session(status, &errcode) => {
            let mut error = MatrixError::new(status, errcode::known(&errcode), message);
            error.extra = body;
            error
        }
        RemoteFailure::Refused { .. } | RemoteFailure::Failed { .. } => {
            let sentence = "The room's policy server could not be asked about the event.";
            MatrixError::new(502, errcode::UNKNOWN, sentence)
        }
    }
    .into()
}

impl From<hearth_rooms::RemoteFailure> for ApiError {
    fn from(failure: hearth_rooms::RemoteFailure) -> Self {
        use hearth_rooms::RemoteFailure;
        let sentence = failure.to_string();
        match failure {
            // What the other server says of the request is passed on: the client can act on it.
            RemoteFailure::Refused {
                status,
                errcode,
                mut body,
                ..
            } if (400..500).contains(&status) && !is_about_the_session(status, &errcode) => {
                let mut error = MatrixError::new(status, errcode::known(&errcode), sentence);
                if error.errcode == errcode::INCOMPATIBLE_ROOM_VERSION {
                    // It says which version that is.
                    error.extra.extend(body.remove_entry("room_version"));
                }
                error
            }
            RemoteFailure::Refused { .. } | RemoteFailure::Failed { .. } => {
                MatrixError::new(502, errcode::UNKNOWN, sentence)
            }
        }
        .into()
    }
}

impl From<hearth_events::Error> for ApiError {
    fn from(error: hearth_events::Error) -> Self {
        use hearth_events::Error;
        let sentence = error.to_string();
        match error {
            Error::Json(_) | Error::Format(_) => MatrixError::bad_json(sentence),
            Error::TooLarge { .. } => MatrixError::too_large(sentence),
            Error::Signature(_) => MatrixError::new(403, errcode::INVALID_SIGNATURE, sentence),
            // A client sends no keys in events; one that cannot be used is the server's own.
            Error::Key(_) => return Self::internal(&sentence),
        }
        .into()
    }
}

impl From<hearth_sync::Error> for ApiError {
    fn from(error: hearth_sync::Error) -> Self {
        use hearth_sync::Error;
        let sentence = error.to_string();
        match error {
            Error::BadToken(_) => MatrixError::invalid_param(sentence).into(),
            Error::UnknownPos => MatrixError::new(400, errcode::UNKNOWN_POS, sentence).into(),
            Error::BadFilter(_) => MatrixError::bad_json(sentence).into(),
            Error::NoFilter => MatrixError::invalid_param(sentence).into(),
            Error::Room(error) => error.into(),
            Error::User(error) => error.into(),
            Error::Storage(error) => error.into(),
            // Whoever asks for no large answer asks again.
            Error::Large => Self::internal(&error),
            Error::Render(error) => Self::internal(&error),
        }
    }
}

impl From<hearth_storage::Error> for ApiError {
    fn from(error: hearth_storage::Error) -> Self {
        use hearth_storage::Error;
        match error {
            // The operator must act, but the server goes on; reads and deletions still work.
            Error::DiskFull => {
                tracing::error!("the disk is almost full, a write was refused");
                let sentence = "The server has no space left";
                MatrixError::new(507, errcode::RESOURCE_LIMIT_EXCEEDED, sentence).into()
            }
            Error::Stopped => MatrixError::new(503, errcode::UNKNOWN, "The server is stopping").into(),
            Error::NotOpen => {
                let sentence = "What this is about is being moved; try again soon";
                MatrixError::new(503, errcode::UNKNOWN, sentence).into()
            }
            error => Self::internal(&error),
        }
    }
}

/// What the specification wants in an error that only the configuration can tell ("Common error codes").
#[derive(Clone, Copy, Debug)]
enum Needs {
    AdminContact,
    InfoUri,
}

impl Needs {
    fn of(errcode: &str) -> Option<Self> {
        match errcode {
            errcode::RESOURCE_LIMIT_EXCEEDED => Some(Self::AdminContact),
            errcode::USER_LIMIT_EXCEEDED => Some(Self::InfoUri),
            _ => None,
        }
    }
}

/// An error whose body lacks something; a mark on the answer for [`finish`].
#[derive(Clone, Debug)]
struct Unfinished(Needs, Map<String, Value>);

/// Adds to an error what only the configuration can tell.
pub(crate) fn finish(response: &mut Response, config: &Config) {
    let Some(Unfinished(needs, mut body)) = response.extensions_mut().remove() else {
        return;
    };
    let (key, value) = match needs {
        Needs::AdminContact => ("admin_contact", config.admin_contact()),
        Needs::InfoUri => ("info_uri", config.help_uri()),
    };
    body.entry(key).or_insert_with(|| value.into());
    *response.body_mut() = Value::Object(body).to_string().into();
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut retry_after_ms = None;
        let needs = self.errcode().and_then(Needs::of);
        let body = match self {
            Self::Interactive(body) => Value::Object(*body),
            Self::Matrix(error) => {
                retry_after_ms = error.retry_after_ms;
                error.body()
            }
        };
        let mut response = (status, body.to_string()).into_response();
        if let (Some(needs), Value::Object(body)) = (needs, body) {
            response.extensions_mut().insert(Unfinished(needs, body));
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(ms) = retry_after_ms {
            // The header counts whole seconds; rounding up keeps a client from coming too early.
            headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
        }
        response
    }
}
