//! Which server makes a request (server-server API, "Request authentication").
//!
//! The signature covers the body, so these extractors read it whole and stand last among a handler's parameters.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use hearth_core::error::MatrixError;
use ruma::{OwnedServerName, ServerName, UserId};
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::extract::{body_bytes, read_object};

/// The largest transaction: 50 PDUs of 64 kB with some unsigned data, and 100 EDUs, whose size nobody limits. One that is
/// refused for its size comes back for ever, with everything that waits behind it, so the limit is above what is usual.
/// Any other body has the limit of the configuration.
const TRANSACTION_MAX_BYTES: usize = 16 << 20;

/// The server that signed the request. A body, if there is one, is not read further.
#[derive(Clone, Debug)]
pub struct Origin(pub OwnedServerName);

/// The server that signed the request, and the JSON object that is its body.
#[derive(Clone, Debug)]
pub struct Signed<T>(pub OwnedServerName, pub T);

/// As [`Signed`], the bytes of the object as they came.
#[derive(Clone, Debug)]
pub struct SignedRaw(pub OwnedServerName, pub Bytes);

/// As [`SignedRaw`], with the limit of a transaction. What is in its events and EDUs is not looked at: each of them is judged
/// by itself, for a transaction that is refused comes back for ever.
#[derive(Clone, Debug)]
pub struct SignedTransaction(pub OwnedServerName, pub Bytes);

impl Origin {
    /// Refuses unless the user belongs to the server that asks.
    pub fn must_own(&self, user: &UserId) -> Result<(), MatrixError> {
        must_own(&self.0, user)
    }
}

/// Refuses unless the user belongs to the server that asks.
pub fn must_own(origin: &ServerName, user: &UserId) -> Result<(), MatrixError> {
    if user.server_name() == origin {
        return Ok(());
    }
    Err(MatrixError::forbidden(format!(
        "{user} is not a user of {origin}"
    )))
}

impl FromRequest<Arc<App>> for Origin {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self> {
        let (origin, _) = authenticate(request, app, app.max_request_bytes()).await?;
        Ok(Self(origin))
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Signed<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self> {
        let (origin, body) = authenticate(request, app, app.max_request_bytes()).await?;
        Ok(Self(origin, read_object(&body)?))
    }
}

impl FromRequest<Arc<App>> for SignedRaw {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self> {
        let (origin, body) = authenticate(request, app, app.max_request_bytes()).await?;
        read_object::<serde::de::IgnoredAny>(&body)?;
        Ok(Self(origin, body))
    }
}

impl FromRequest<Arc<App>> for SignedTransaction {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self> {
        let (origin, body) = authenticate(request, app, TRANSACTION_MAX_BYTES).await?;
        Ok(Self(origin, body))
    }
}

async fn authenticate(request: Request, app: &App, limit: usize) -> Result<(OwnedServerName, Bytes)> {
    let (parts, body) = request.into_parts();
    // Before the body is read: who signs nothing sends nothing that we keep.
    if !parts.headers.contains_key(http::header::AUTHORIZATION) {
        return Err(MatrixError::from(hearth_federation::AuthFailure::Missing).into());
    }
    let body = body_bytes(body, limit).await?;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let checked = app
        .federation
        .auth
        .check(&parts.method, target, &parts.headers, &body);
    let origin = checked.await.map_err(MatrixError::from)?;
    app.federation.outbound.wake(&origin);
    Ok((origin, body))
}
