//! `PUT` and `DELETE /_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}` — Application
//! Service API, "Application service room directories".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Whether the room is in the network's directory.
#[derive(Deserialize)]
pub struct Body {
    visibility: Visibility,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Visibility {
    Public,
    Private,
}

/// Puts a room into the directory of a bridged network, or takes it out.
pub async fn put_directory_list(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((network, room)): Path<(String, OwnedRoomId)>,
    Json(body): Json<Body>,
) -> Result<Json<Map<String, Value>>> {
    set(
        &app,
        &auth,
        &network,
        &room,
        body.visibility == Visibility::Public,
    )
    .await
}

/// Takes a room out of the directory of a bridged network.
///
/// NOTSPEC: only PUT is specified; bridges made for older servers send DELETE.
pub async fn delete_directory_list(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((network, room)): Path<(String, OwnedRoomId)>,
) -> Result<Json<Map<String, Value>>> {
    set(&app, &auth, &network, &room, false).await
}

async fn set(
    app: &App,
    auth: &Auth,
    network: &str,
    room: &OwnedRoomId,
    listed: bool,
) -> Result<Json<Map<String, Value>>> {
    if auth.appservice.is_none() {
        let sentence = "Only application services have directories of networks";
        return Err(MatrixError::forbidden(sentence).into());
    }
    // The id becomes part of a key in which a NUL ends it.
    if network.is_empty() || network.contains('\0') {
        return Err(MatrixError::invalid_param("This is no network id").into());
    }
    if listed && app.rooms.get(room)?.is_none() {
        return Err(MatrixError::not_found("This server does not know the room").into());
    }
    app.rooms.set_network_listed(room, network, listed).await?;
    Ok(Json(Map::new()))
}
