//! `GET /_matrix/media/v3/download/{serverName}/{mediaId}` — Client-Server API, "Content
//! repository", deprecated.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;

use super::super::serve::{DownloadQuery, download};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Address, OptionalAuth, Path, Query};

/// Downloads a file, without an access token where the operator allows it.
pub async fn get_download(
    State(app): State<Arc<App>>,
    auth: OptionalAuth,
    address: Address,
    Path((server, id)): Path<(String, String)>,
    Query(query): Query<DownloadQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    super::admit(&app, &auth, address)?;
    download(&app, &headers, (&server, &id), query, None).await
}
