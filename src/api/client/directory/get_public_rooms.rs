//! GET /_matrix/client/v3/publicRooms — Client-Server API, "Published room directory".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::DirectoryEntry;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Anybody, Json, Query};

#[derive(Deserialize)]
pub struct Options {
    limit: Option<u64>,
    since: Option<String>,
    server: Option<String>,
}

/// The public directory. Anybody may ask, within a limit: other servers are asked for theirs.
pub async fn get_public_rooms(
    State(app): State<Arc<App>>,
    _: Anybody,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let mut asked = Map::new();
    if let Some(limit) = options.limit {
        asked.insert("limit".to_owned(), json!(limit));
    }
    if let Some(since) = &options.since {
        asked.insert("since".to_owned(), json!(since));
    }
    if let Some(answer) = super::elsewhere(&app, options.server.as_deref(), asked.into()).await? {
        return Ok(Json(answer));
    }
    let query = DirectoryEntry {
        limit: options
            .limit
            .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        since: super::since(options.since.as_deref())?,
        ..DirectoryEntry::default()
    };
    Ok(Json(super::page(&app, query).await?))
}
