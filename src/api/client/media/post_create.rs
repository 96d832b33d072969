//! `POST /_matrix/media/v1/create` — Client-Server API, "Content repository".

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json};
use crate::ratelimit::Class;

/// The new URI.
#[derive(Serialize)]
pub struct Answer {
    content_uri: String,
    unused_expires_at: u64,
}

/// Announces a file that is uploaded later.
pub async fn post_create(State(app): State<Arc<App>>, auth: Auth) -> Result<Json<Answer>> {
    auth.count(&app, Class::Media)?;
    let (media, unused_expires_at) = app.media.create(&auth.user).await?;
    Ok(Json(Answer {
        content_uri: media.uri(),
        unused_expires_at,
    }))
}
