//! POST /_matrix/federation/v1/publicRooms — Server-Server API, "Published room directory".

use std::sync::Arc;

use axum::extract::State;
use serde_json::Value;

use crate::app::App;
use crate::client::directory;
use crate::error::Result;
use crate::extract::Json;
use crate::federation::origin::Signed;

/// A page of the public directory, searched.
pub async fn post_public_rooms(
    State(app): State<Arc<App>>,
    Signed(_, search): Signed<directory::Search>,
) -> Result<Json<Value>> {
    let mut query = search.entry()?;
    query.limit = query.limit.and_then(super::limit);
    Ok(Json(directory::page(&app, query).await?))
}
