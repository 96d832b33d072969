//! PUT /_matrix/client/v1/admin/lock/{userId} — Client-Server API, "Server administration".

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
    locked: bool,
}

/// Locks an account, or unlocks.
pub async fn put_lock(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(user): Path<OwnedUserId>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    let target = target::changeable(&app, &auth, &user)?;
    target.set_locked(body.locked).await?;
    Ok(Json(json!({ "locked": body.locked })))
}
