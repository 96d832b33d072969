//! POST /_matrix/client/v3/user/{userId}/openid/request_token — Client-Server API, "OpenID".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedUserId;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

/// A token by which another service learns who the user is, and nothing more.
pub async fn post_request_token(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(user): Path<OwnedUserId>,
    OptionalJson(_): OptionalJson<IgnoredAny>,
) -> Result<Json<Value>> {
    auth.must_be(&user)?;
    let token = auth.handle.issue_openid_token().await?;
    Ok(Json(json!({
        "access_token": token.access_token,
        "token_type": "Bearer",
        "matrix_server_name": app.server_name,
        "expires_in": token.expires_in_s,
    })))
}
