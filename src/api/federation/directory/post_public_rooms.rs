//! POST /_matrix/federation/v1/publicRooms — Server-Server API, "Published room directory".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::DirectoryEntry;
use serde::Deserialize;
use serde_json::Value;

use crate::app::App;
use crate::client::directory;
use crate::error::Result;
use crate::extract::Json;
use crate::federation::origin::Signed;

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    limit: Option<u64>,
    since: Option<String>,
    #[serde(default)]
    filter: Filter,
    #[serde(default)]
    include_all_networks: bool,
    third_party_instance_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct Filter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

/// A page of the public directory, searched.
pub async fn post_public_rooms(
    State(app): State<Arc<App>>,
    Signed(_, body): Signed<Body>,
) -> Result<Json<Value>> {
    let query = DirectoryEntry {
        search: body.filter.generic_search_term,
        room_types: body.filter.room_types,
        network: body.third_party_instance_id,
        all_networks: body.include_all_networks,
        limit: super::limit(body.limit),
        since: directory::since(body.since.as_deref())?,
    };
    Ok(Json(directory::page(&app, query).await?))
}
