//! POST /_matrix/client/v3/publicRooms — Client-Server API, "Published room directory".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::search::Search;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Query};

#[derive(Deserialize)]
pub struct Options {
    server: Option<String>,
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
    let search: Search = serde_json::from_value(Value::Object(body))
        .map_err(|error| MatrixError::bad_json(format!("The query is wrong: {error}")))?;
    Ok(Json(super::page(&app, search.entry()?).await?))
}
