//! POST /_matrix/client/v3/refresh — Client-Server API, "Refreshing access tokens".

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Address, Json};
use crate::ratelimit::Class;

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    refresh_token: String,
}

/// New tokens for a refresh token; the old ones end when the new ones are used.
pub async fn post_refresh(
    State(app): State<Arc<App>>,
    Address(address): Address,
    Json(body): Json<Body>,
) -> Result<Json<Map<String, Value>>> {
    app.limits.address(Class::Write, address)?;
    let tokens = app.users.refresh(&body.refresh_token).await?;
    let mut answer = Map::new();
    answer.insert("access_token".into(), tokens.access_token.into());
    if let Some(refresh_token) = tokens.refresh_token {
        answer.insert("refresh_token".into(), refresh_token.into());
    }
    if let Some(ms) = tokens.expires_in_ms {
        answer.insert("expires_in_ms".into(), ms.into());
    }
    Ok(Json(answer))
}
