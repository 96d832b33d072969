//! GET /_matrix/federation/v1/query/profile — Server-Server API, "Querying for information".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::app::App;
use crate::client::profile;
use crate::error::Result;
use crate::extract::{Json, Query};
use crate::federation::origin::Origin;

/// The query.
#[derive(Deserialize)]
pub struct Options {
    user_id: OwnedUserId,
    field: Option<String>,
}

/// The profile of a user of this server, or one field of it.
pub async fn get_query_profile(
    State(app): State<Arc<App>>,
    Query(options): Query<Options>,
    Origin(_): Origin,
) -> Result<Json<Map<String, Value>>> {
    if !app.users.is_local(&options.user_id) {
        return Err(MatrixError::invalid_param("The user is not of this server").into());
    }
    let mut fields = profile::local_fields_of(&app, &options.user_id)?;
    let Some(field) = options.field else {
        return Ok(Json(fields));
    };
    match fields.remove(&field) {
        Some(value) => Ok(Json(Map::from_iter([(field, value)]))),
        None => Err(MatrixError::not_found("The profile has no such field").into()),
    }
}
