//! `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}` — Client-Server API,
//! "Content repository".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;

use super::serve::{DownloadQuery, download};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Path, Query};
use crate::ratelimit::Class;

/// Downloads a file under the name that the client wants.
pub async fn get_download_named(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((server, id, name)): Path<(String, String, String)>,
    Query(query): Query<DownloadQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    auth.count(&app, Class::Media)?;
    download(&app, &headers, (&server, &id), query, Some(&name)).await
}
