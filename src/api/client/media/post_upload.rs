//! `POST /_matrix/media/v3/upload` — Client-Server API, "Content repository".

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use serde::Serialize;

use super::serve::{UploadQuery, check_length, description, stream_of};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Query};
use crate::ratelimit::Class;

/// Where the file is.
#[derive(Serialize)]
pub struct Answer {
    content_uri: String,
}

/// Uploads a file.
pub async fn post_upload(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(query): Query<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Answer>> {
    auth.count(&app, Class::Media)?;
    check_length(&app, &headers)?;
    let description = description(query, &headers);
    let media = app.media.upload(&auth.user, description, stream_of(body)).await?;
    Ok(Json(Answer {
        content_uri: media.uri(),
    }))
}
