//! `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}` — Client-Server API, "Content repository".

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::serve::{UploadQuery, check_length, description, media_id, stream_of};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};
use crate::ratelimit::Class;

/// Uploads a file that was announced.
pub async fn put_upload(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((server, id)): Path<(String, String)>,
    Query(query): Query<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Map<String, Value>>> {
    auth.count(&app, Class::Media)?;
    check_length(&app, &headers)?;
    let media = media_id(&server, &id)?;
    let description = description(query, &headers);
    app.media
        .upload_to(&auth.user, &media, description, stream_of(body))
        .await?;
    Ok(Json(Map::new()))
}
