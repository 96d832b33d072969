//! GET /_matrix/federation/v1/media/download/{mediaId} — Server-Server API, "Content Repository".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_media::{content_disposition, disposition_for};
use serde::Deserialize;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Path, Query};
use crate::federation::origin::Origin;

/// The query.
#[derive(Deserialize)]
pub struct Options {
    timeout_ms: Option<u64>,
}

/// A file that was uploaded here.
pub async fn get_download(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(options): Query<Options>,
    Origin(_): Origin,
) -> Result<Response> {
    let media = super::local_id(&app, &id)?;
    let content = app
        .media
        .find(&media, super::wait(options.timeout_ms), false)
        .await?;
    let disposition = disposition_for(&content.content_type);
    let disposition = content_disposition(disposition, content.file_name.as_deref());
    let body = app.media.read(&content, None).await?;
    super::multipart(&app, &content.content_type, &disposition, body)
}
