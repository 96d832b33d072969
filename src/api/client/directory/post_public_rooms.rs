//! POST /_matrix/client/v3/publicRooms — Client-Server API, "Published room directory".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::DirectoryEntry;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Query};

#[derive(Deserialize)]
pub struct Options {
    server: Option<String>,
}

#[derive(Default, Deserialize)]
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

/// The public directory, searched.
pub async fn post_public_rooms(
    State(app): State<Arc<App>>,
    _auth: Auth,
    Query(options): Query<Options>,
    OptionalJson(body): OptionalJson<Map<String, Value>>,
) -> Result<Json<Value>> {
    if let Some(answer) =
        super::elsewhere(&app, options.server.as_deref(), Value::Object(body.clone())).await?
    {
        return Ok(Json(answer));
    }
    let body: Body = serde_json::from_value(Value::Object(body))
        .map_err(|error| MatrixError::bad_json(format!("The query is wrong: {error}")))?;
    if body.include_all_networks && body.third_party_instance_id.is_some() {
        let sentence = "third_party_instance_id and include_all_networks exclude each other";
        return Err(MatrixError::invalid_param(sentence).into());
    }
    let query = DirectoryEntry {
        search: body.filter.generic_search_term,
        room_types: body.filter.room_types,
        network: body.third_party_instance_id,
        all_networks: body.include_all_networks,
        limit: body
            .limit
            .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        since: super::since(body.since.as_deref())?,
    };
    Ok(Json(super::page(&app, query).await?))
}
