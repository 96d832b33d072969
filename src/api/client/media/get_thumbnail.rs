//! `GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}` — Client-Server API, "Content
//! repository".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;

use super::serve::{ThumbnailQuery, thumbnail};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Path, Query};
use crate::ratelimit::Class;

/// A thumbnail of a picture.
pub async fn get_thumbnail(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((server, id)): Path<(String, String)>,
    Query(query): Query<ThumbnailQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    auth.count(&app, Class::Media)?;
    thumbnail(&app, &headers, (&server, &id), query).await
}
