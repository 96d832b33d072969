//! `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}` — Client-Server API, "Content
//! repository".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;

use super::serve::{DownloadQuery, download};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Path, Query};
use crate::ratelimit::Class;

/// Downloads a file.
pub async fn get_download(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((server, id)): Path<(String, String)>,
    Query(query): Query<DownloadQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    auth.count(&app, Class::Media)?;
    download(&app, &headers, (&server, &id), query, None).await
}
