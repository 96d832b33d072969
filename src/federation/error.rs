//! Why another server could not be asked, or refused.

use hearth_core::MatrixError;
use hearth_core::error::errcode;
use hearth_core::http::TransportError;
use ruma::OwnedServerName;
use serde_json::{Map, Value};

/// Why a request to another server gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// It answered with another status than 2xx.
    #[error("{server} answered {status} {errcode}: {error}")]
    Status {
        /// Who.
        server: OwnedServerName,
        /// The HTTP status.
        status: u16,
        /// The Matrix error code; empty where the body has none.
        errcode: String,
        /// The sentence of the Matrix error; empty where the body has none.
        error: String,
        /// The whole body where it is a JSON object, else empty.
        body: Map<String, Value>,
    },
    /// It did not answer.
    #[error("{server}: {error}")]
    Transport {
        /// Who.
        server: OwnedServerName,
        /// What happened.
        error: TransportError,
    },
    /// It did not answer a moment ago and is not asked again yet.
    #[error("{server} did not answer a moment ago and is asked again in {retry_after_ms} ms")]
    Resting {
        /// Who.
        server: OwnedServerName,
        /// How long it is left alone.
        retry_after_ms: u64,
    },
    /// Its answer is not what the specification says.
    #[error("{server} answered with something unexpected: {why}")]
    Malformed {
        /// Who.
        server: OwnedServerName,
        /// What is wrong.
        why: String,
    },
    /// This request cannot be made.
    #[error("a request to {server} cannot be made: {why}")]
    Request {
        /// Who.
        server: OwnedServerName,
        /// What is wrong.
        why: String,
    },
}

/// Whether an error says something of the session of whoever asked. Said by another server it is about our own authentication
/// there, or a lie that would log the client out: it is never passed on.
pub fn is_about_the_session(status: u16, code: &str) -> bool {
    const CODES: [&str; 5] = [
        errcode::UNKNOWN_TOKEN,
        errcode::MISSING_TOKEN,
        errcode::USER_LOCKED,
        errcode::USER_SUSPENDED,
        errcode::USER_DEACTIVATED,
    ];
    status == 401 || CODES.contains(&code)
}

impl ClientError {
    /// Whom the request was for.
    pub fn server(&self) -> &OwnedServerName {
        match self {
            Self::Status { server, .. }
            | Self::Transport { server, .. }
            | Self::Resting { server, .. }
            | Self::Malformed { server, .. }
            | Self::Request { server, .. } => server,
        }
    }

    /// Whether the other server does not know the endpoint: then an older one may help. Old servers say so with a
    /// bare 404 or 405, newer ones with M_UNRECOGNIZED.
    pub fn is_unrecognized(&self) -> bool {
        match self {
            Self::Status { status, errcode, .. } => {
                errcode == errcode::UNRECOGNIZED || (matches!(status, 404 | 405) && errcode.is_empty())
            }
            _ => false,
        }
    }

    /// Whether the other server refused without saying so as Matrix servers do: what answered may not be one that knows
    /// the endpoint.
    pub fn is_no_matrix_answer(&self) -> bool {
        match self {
            Self::Status { status, errcode, .. } => (400..500).contains(status) && errcode.is_empty(),
            _ => false,
        }
    }

    /// Whether the other server could not be reached at all, as opposed to an answer that we did not like.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Transport { .. } | Self::Resting { .. })
    }

    /// The error for a client on whose behalf we asked: a Matrix error of the other server is passed on, everything
    /// else is 502.
    pub fn to_matrix(&self) -> MatrixError {
        if let Self::Status {
            status,
            errcode,
            error,
            ..
        } = self
            && let Some(code) = errcode::ALL.iter().find(|known| *known == errcode)
            && (400..500).contains(status)
            && !is_about_the_session(*status, errcode)
        {
            return MatrixError::new(*status, code, error.clone());
        }
        MatrixError::new(502, errcode::UNKNOWN, "The other server could not be asked.")
    }
}
