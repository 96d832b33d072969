//! PUT /_matrix/client/v1/admin/suspend/{userId} — Client-Server API, "Server administration".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::target;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    suspended: bool,
}

/// Suspends an account, or ends a suspension.
pub async fn put_suspend(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(user): Path<OwnedUserId>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    let target = target::changeable(&app, &auth, &user)?;
    target.set_suspended(body.suspended).await?;
    Ok(Json(json!({ "suspended": body.suspended })))
}
