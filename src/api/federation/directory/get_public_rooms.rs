//! GET /_matrix/federation/v1/publicRooms — Server-Server API, "Published room directory".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::DirectoryEntry;
use serde::Deserialize;
use serde_json::Value;

use crate::app::App;
use crate::client::directory;
use crate::error::Result;
use crate::extract::{Json, Query};
use crate::federation::origin::Origin;

/// The query.
#[derive(Deserialize)]
pub struct Options {
    limit: Option<usize>,
    since: Option<String>,
    #[serde(default)]
    include_all_networks: bool,
    third_party_instance_id: Option<String>,
}

/// A page of the public directory.
pub async fn get_public_rooms(
    State(app): State<Arc<App>>,
    Query(options): Query<Options>,
    Origin(_): Origin,
) -> Result<Json<Value>> {
    let query = DirectoryEntry {
        network: options.third_party_instance_id,
        all_networks: options.include_all_networks,
        limit: options.limit.and_then(super::limit),
        since: directory::since(options.since.as_deref())?,
        ..DirectoryEntry::default()
    };
    Ok(Json(directory::page(&app, query).await?))
}
