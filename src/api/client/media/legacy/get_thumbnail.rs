//! `GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}` — Client-Server API, "Content
//! repository", deprecated.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;

use super::super::serve::{ThumbnailQuery, thumbnail};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Address, OptionalAuth, Path, Query};

/// A thumbnail, without an access token where the operator allows it.
pub async fn get_thumbnail(
    State(app): State<Arc<App>>,
    auth: OptionalAuth,
    address: Address,
    Path((server, id)): Path<(String, String)>,
    Query(query): Query<ThumbnailQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    super::admit(&app, &auth, address)?;
    thumbnail(&app, &headers, (&server, &id), query).await
}
