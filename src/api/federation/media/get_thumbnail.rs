//! GET /_matrix/federation/v1/media/thumbnail/{mediaId} — Server-Server API, "Content Repository".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_media::{Disposition, content_disposition};

use crate::app::App;
use crate::client::media::serve::ThumbnailQuery;
use crate::error::Result;
use crate::extract::{Path, Query};
use crate::federation::origin::Origin;

/// A thumbnail of a picture that was uploaded here.
pub async fn get_thumbnail(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<ThumbnailQuery>,
    Origin(_): Origin,
) -> Result<Response> {
    let media = super::local_id(&app, &id)?;
    let wait = super::wait(query.timeout_ms);
    let found = app.media.thumbnail(&media, query.request(), wait, false).await?;
    let extension = found.content_type.trim_start_matches("image/");
    let name = format!("thumbnail.{extension}");
    let disposition = content_disposition(Disposition::Inline, Some(&name));
    super::multipart(&app, found.content_type, &disposition, found.body)
}
