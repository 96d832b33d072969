//! GET /_matrix/client/v1/admin/lock/{userId} — Client-Server API, "Server administration".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedUserId;
use serde_json::{Value, json};

use super::target;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Whether the account is locked.
pub async fn get_lock(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(user): Path<OwnedUserId>,
) -> Result<Json<Value>> {
    let target = target::visible(&app, &auth, &user)?;
    Ok(Json(json!({ "locked": target.account()?.locked })))
}
