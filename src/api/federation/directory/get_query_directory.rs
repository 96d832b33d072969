//! GET /_matrix/federation/v1/query/directory — Server-Server API, "Querying for information".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedRoomAliasId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Query};
use crate::federation::origin::Origin;

/// How many servers of a room are named: a joining server tries a few of them.
const SERVERS_MAX: usize = 50;

/// The query.
#[derive(Deserialize)]
pub struct Options {
    room_alias: OwnedRoomAliasId,
}

/// The room that an alias of this server points to, and servers that are in it, this one first.
pub async fn get_query_directory(
    State(app): State<Arc<App>>,
    Query(options): Query<Options>,
    Origin(_): Origin,
) -> Result<Json<Value>> {
    let found = app.rooms.alias(&options.room_alias)?;
    let found = found.ok_or_else(|| MatrixError::not_found("Room alias not found."))?;
    let mut servers = vec![app.server_name.clone()];
    if let Some(room) = app.rooms.get(&found.room_id)? {
        let others = room.servers().into_iter();
        servers.extend(others.filter(|name| *name != app.server_name));
    }
    servers.truncate(SERVERS_MAX);
    Ok(Json(json!({ "room_id": found.room_id, "servers": servers })))
}
