//! The Matrix error as data. Crates below `api` return it where a rule of the specification decides
//! the answer; `api` writes it to the wire.

use serde_json::{Map, Value};

/// Error codes of the Matrix specification.
pub mod errcode {
    macro_rules! codes {
        ($($(#[doc = $doc:literal])* $name:ident = $code:literal;)*) => {
            $($(#[doc = $doc])* pub const $name: &str = $code;)*
            /// Every code above.
            pub const ALL: &[&str] = &[$($code),*];

            /// The code of this list with this text, else `M_UNKNOWN`: for what another server said.
            pub fn known(text: &str) -> &'static str {
                ALL.iter().find(|code| **code == text).copied().unwrap_or("M_UNKNOWN")
            }
        };
    }
    codes! {
        /// The server does not let application services log in this way.
        APPSERVICE_LOGIN_UNSUPPORTED = "M_APPSERVICE_LOGIN_UNSUPPORTED";
        /// The aliases do not point to the room.
        BAD_ALIAS = "M_BAD_ALIAS";
        /// JSON, but not of the expected shape.
        BAD_JSON = "M_BAD_JSON";
        /// The state change is not allowed in this state of the room.
        BAD_STATE = "M_BAD_STATE";
        /// The application service answered with a bad status.
        BAD_STATUS = "M_BAD_STATUS";
        /// The server notices room may not be left.
        CANNOT_LEAVE_SERVER_NOTICE_ROOM = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM";
        /// The media id already has content.
        CANNOT_OVERWRITE_MEDIA = "M_CANNOT_OVERWRITE_MEDIA";
        /// The captcha was not solved.
        CAPTCHA_INVALID = "M_CAPTCHA_INVALID";
        /// A captcha is needed.
        CAPTCHA_NEEDED = "M_CAPTCHA_NEEDED";
        /// The connection to the application service failed.
        CONNECTION_FAILED = "M_CONNECTION_FAILED";
        /// The connection to the application service timed out.
        CONNECTION_TIMEOUT = "M_CONNECTION_TIMEOUT";
        /// The same reaction was sent before.
        DUPLICATE_ANNOTATION = "M_DUPLICATE_ANNOTATION";
        /// The name is reserved by an application service.
        EXCLUSIVE = "M_EXCLUSIVE";
        /// A client subscribes by itself to a thread that the user has unsubscribed from since (MSC4306).
        CONFLICTING_UNSUBSCRIPTION = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";
        /// Not allowed.
        FORBIDDEN = "M_FORBIDDEN";
        /// Guests may not join the room.
        GUEST_ACCESS_FORBIDDEN = "M_GUEST_ACCESS_FORBIDDEN";
        /// The room's version is one that the other side does not support.
        INCOMPATIBLE_ROOM_VERSION = "M_INCOMPATIBLE_ROOM_VERSION";
        /// A parameter has a wrong value.
        INVALID_PARAM = "M_INVALID_PARAM";
        /// The initial state of a room does not hold together.
        INVALID_ROOM_STATE = "M_INVALID_ROOM_STATE";
        /// A signature does not match.
        INVALID_SIGNATURE = "M_INVALID_SIGNATURE";
        /// The name is not one that a user may have.
        INVALID_USERNAME = "M_INVALID_USERNAME";
        /// The invited user does not take this invitation.
        INVITE_BLOCKED = "M_INVITE_BLOCKED";
        /// The name of a profile field is too long.
        KEY_TOO_LARGE = "M_KEY_TOO_LARGE";
        /// Too many requests.
        LIMIT_EXCEEDED = "M_LIMIT_EXCEEDED";
        /// A parameter is missing.
        MISSING_PARAM = "M_MISSING_PARAM";
        /// No access token was sent.
        MISSING_TOKEN = "M_MISSING_TOKEN";
        /// Nothing was found.
        NOT_FOUND = "M_NOT_FOUND";
        /// The event is not in the thread (MSC4306).
        NOT_IN_THREAD = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD";
        /// Not JSON.
        NOT_JSON = "M_NOT_JSON";
        /// The media was announced but is not there yet.
        NOT_YET_UPLOADED = "M_NOT_YET_UPLOADED";
        /// The profile would become too large.
        PROFILE_TOO_LARGE = "M_PROFILE_TOO_LARGE";
        /// A limit of the server is reached.
        RESOURCE_LIMIT_EXCEEDED = "M_RESOURCE_LIMIT_EXCEEDED";
        /// The alias is taken.
        ROOM_IN_USE = "M_ROOM_IN_USE";
        /// The other server is not trusted.
        SERVER_NOT_TRUSTED = "M_SERVER_NOT_TRUSTED";
        /// The third-party identifier could not be proved.
        THREEPID_AUTH_FAILED = "M_THREEPID_AUTH_FAILED";
        /// The third-party identifier is not allowed.
        THREEPID_DENIED = "M_THREEPID_DENIED";
        /// The third-party identifier belongs to another account.
        THREEPID_IN_USE = "M_THREEPID_IN_USE";
        /// This kind of third-party identifier is not supported.
        THREEPID_MEDIUM_NOT_SUPPORTED = "M_THREEPID_MEDIUM_NOT_SUPPORTED";
        /// No account has the third-party identifier.
        THREEPID_NOT_FOUND = "M_THREEPID_NOT_FOUND";
        /// The request or its content is too large.
        TOO_LARGE = "M_TOO_LARGE";
        /// This server cannot tell whether the join is allowed.
        UNABLE_TO_AUTHORISE_JOIN = "M_UNABLE_TO_AUTHORISE_JOIN";
        /// This server cannot vouch for the join.
        UNABLE_TO_GRANT_JOIN = "M_UNABLE_TO_GRANT_JOIN";
        /// The request could not be authorized.
        UNAUTHORIZED = "M_UNAUTHORIZED";
        /// Something that has no code of its own.
        UNKNOWN = "M_UNKNOWN";
        /// The device does not exist.
        UNKNOWN_DEVICE = "M_UNKNOWN_DEVICE";
        /// The room position is unknown.
        UNKNOWN_POS = "M_UNKNOWN_POS";
        /// The access token is not valid.
        UNKNOWN_TOKEN = "M_UNKNOWN_TOKEN";
        /// No such endpoint or method.
        UNRECOGNIZED = "M_UNRECOGNIZED";
        /// The room version is not supported here.
        UNSUPPORTED_ROOM_VERSION = "M_UNSUPPORTED_ROOM_VERSION";
        /// The application service has no URL.
        URL_NOT_SET = "M_URL_NOT_SET";
        /// The account is deactivated.
        USER_DEACTIVATED = "M_USER_DEACTIVATED";
        /// The name is taken.
        USER_IN_USE = "M_USER_IN_USE";
        /// A limit of the user's account is reached.
        USER_LIMIT_EXCEEDED = "M_USER_LIMIT_EXCEEDED";
        /// The account is locked.
        USER_LOCKED = "M_USER_LOCKED";
        /// The account is suspended.
        USER_SUSPENDED = "M_USER_SUSPENDED";
        /// The password is too weak.
        WEAK_PASSWORD = "M_WEAK_PASSWORD";
        /// The key backup has another version.
        WRONG_ROOM_KEYS_VERSION = "M_WRONG_ROOM_KEYS_VERSION";
    }
}

/// A refusal as the specification words it: an HTTP status, an errcode, and a sentence for people.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixError {
    /// The HTTP status.
    pub status: u16,
    /// The code, one of [`errcode`].
    pub errcode: &'static str,
    /// A sentence that says what was wrong.
    pub message: String,
    /// Further members of the JSON body.
    pub extra: Map<String, Value>,
    /// How long the client should wait; also sent as `Retry-After`.
    pub retry_after_ms: Option<u64>,
}

impl std::fmt::Display for MatrixError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.errcode, self.message)
    }
}

impl std::error::Error for MatrixError {}

impl MatrixError {
    /// An error of any status and code.
    pub fn new(status: u16, errcode: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            errcode,
            message: message.into(),
            extra: Map::new(),
            retry_after_ms: None,
        }
    }

    /// 403 M_FORBIDDEN.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, errcode::FORBIDDEN, message)
    }

    /// 404 M_NOT_FOUND.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, errcode::NOT_FOUND, message)
    }

    /// 400 M_BAD_JSON.
    pub fn bad_json(message: impl Into<String>) -> Self {
        Self::new(400, errcode::BAD_JSON, message)
    }

    /// 400 M_NOT_JSON.
    pub fn not_json(message: impl Into<String>) -> Self {
        Self::new(400, errcode::NOT_JSON, message)
    }

    /// 400 M_INVALID_PARAM.
    pub fn invalid_param(message: impl Into<String>) -> Self {
        Self::new(400, errcode::INVALID_PARAM, message)
    }

    /// 400 M_MISSING_PARAM.
    pub fn missing_param(message: impl Into<String>) -> Self {
        Self::new(400, errcode::MISSING_PARAM, message)
    }

    /// 401 M_UNKNOWN_TOKEN. With `soft_logout` the client keeps its keys and logs in again.
    pub fn unknown_token(message: impl Into<String>, soft_logout: bool) -> Self {
        let error = Self::new(401, errcode::UNKNOWN_TOKEN, message);
        if soft_logout {
            error.with("soft_logout", true)
        } else {
            error
        }
    }

    /// 401 M_MISSING_TOKEN.
    pub fn missing_token() -> Self {
        Self::new(401, errcode::MISSING_TOKEN, "This request needs an access token.")
    }

    /// 429 M_LIMIT_EXCEEDED, to be tried again after `retry_after_ms`.
    pub fn limit_exceeded(retry_after_ms: u64) -> Self {
        let error = Self::new(
            429,
            errcode::LIMIT_EXCEEDED,
            "Too many requests. Wait a moment and try again.",
        );
        Self {
            retry_after_ms: Some(retry_after_ms),
            ..error
        }
    }

    /// 413 M_TOO_LARGE.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, errcode::TOO_LARGE, message)
    }

    /// 404 M_UNRECOGNIZED, for a path that does not exist.
    pub fn unrecognized() -> Self {
        Self::new(404, errcode::UNRECOGNIZED, "This server has no such endpoint.")
    }

    /// 405 M_UNRECOGNIZED, for a path that exists with other methods.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            errcode::UNRECOGNIZED,
            "This endpoint does not support this method.",
        )
    }

    /// 400 M_USER_IN_USE.
    pub fn user_in_use(message: impl Into<String>) -> Self {
        Self::new(400, errcode::USER_IN_USE, message)
    }

    /// 400 M_INVALID_USERNAME.
    pub fn invalid_username(message: impl Into<String>) -> Self {
        Self::new(400, errcode::INVALID_USERNAME, message)
    }

    /// 400 M_ROOM_IN_USE, as `createRoom` answers it; `PUT directory/room` says 409 with M_UNKNOWN.
    pub fn room_in_use(message: impl Into<String>) -> Self {
        Self::new(400, errcode::ROOM_IN_USE, message)
    }

    /// 400 M_EXCLUSIVE.
    pub fn exclusive(message: impl Into<String>) -> Self {
        Self::new(400, errcode::EXCLUSIVE, message)
    }

    /// 400 M_UNKNOWN.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(400, errcode::UNKNOWN, message)
    }

    /// 500 M_UNKNOWN. The message goes to the client, so it says nothing about our insides.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, errcode::UNKNOWN, message)
    }

    /// 400 M_UNSUPPORTED_ROOM_VERSION.
    pub fn unsupported_room_version(message: impl Into<String>) -> Self {
        Self::new(400, errcode::UNSUPPORTED_ROOM_VERSION, message)
    }

    /// The error with one more member in its JSON body.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(key.to_owned(), value.into());
        self
    }

    /// The JSON body.
    pub fn body(&self) -> Value {
        let mut body = self.extra.clone();
        // Those of another server's error that is passed on word for word stand.
        body.entry("errcode").or_insert_with(|| self.errcode.into());
        body.entry("error")
            .or_insert_with(|| self.message.as_str().into());
        if let Some(ms) = self.retry_after_ms {
            body.insert("retry_after_ms".to_owned(), ms.into());
        }
        Value::Object(body)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies() {
        let cases = [
            (
                MatrixError::forbidden("no"),
                403,
                json!({"errcode": "M_FORBIDDEN", "error": "no"}),
            ),
            (
                MatrixError::unknown_token("old", true),
                401,
                json!({"errcode": "M_UNKNOWN_TOKEN", "error": "old", "soft_logout": true}),
            ),
            (
                MatrixError::new(409, errcode::BAD_STATE, "x").with("n", 1),
                409,
                json!({"errcode": "M_BAD_STATE", "error": "x", "n": 1}),
            ),
        ];
        for (error, status, body) in cases {
            assert_eq!(error.status, status);
            assert_eq!(error.body(), body);
        }
        assert_eq!(MatrixError::limit_exceeded(7).body()["retry_after_ms"], 7);
    }

    #[test]
    fn codes_are_distinct_and_well_formed() {
        let mut seen = std::collections::BTreeSet::new();
        for code in errcode::ALL {
            // Codes of proposals have a name before theirs.
            let name = code.rsplit('.').next().unwrap_or_default();
            assert!(name.starts_with("M_") && seen.insert(code), "{code}");
        }
    }
}
