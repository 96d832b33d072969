//! `GET /_matrix/client/v1/media/preview_url` and the deprecated `GET /_matrix/media/v3/preview_url` — Client-Server
//! API, "Content repository".
//!
//! Both need an access token, whatever `unauthenticated_media` says: nobody else may send this server about. Where
//! previews are switched off the endpoint does not exist.

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use serde::Deserialize;
use serde_json::Value;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Query};
use crate::ratelimit::Class;

/// The page. `ts` is not read: the specification lets a server answer with what it has now.
#[derive(Deserialize)]
pub struct Options {
    url: String,
}

/// What a page says of itself.
pub async fn get_preview_url(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let Some(previews) = &app.previews else {
        return Err(MatrixError::unrecognized().into());
    };
    auth.count(&app, Class::UrlPreview)?;
    let preview = previews.preview(&options.url).await?;
    Ok(Json(Value::Object((*preview).clone())))
}
