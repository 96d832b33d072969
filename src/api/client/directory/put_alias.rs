//! PUT /_matrix/client/v3/directory/room/{roomAlias} — Client-Server API, "Room aliases".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::{MatrixError, errcode};
use ruma::{OwnedRoomAliasId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

#[derive(Deserialize)]
pub struct Body {
    room_id: OwnedRoomId,
}

/// Gives a room an alias.
pub async fn put_alias(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(alias): Path<OwnedRoomAliasId>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.must_be_among(&app, app.config.room.aliases)?;
    if alias.server_name() != app.server_name {
        return Err(MatrixError::invalid_param("Only aliases of this server can be set here").into());
    }
    app.check_alias_owner(&auth, &alias)?;
    if auth.appservice.is_none() {
        crate::client::rooms::joined_room(&app, &body.room_id, &auth.user)?;
    } else {
        crate::client::rooms::room(&app, &body.room_id)?;
    }
    let set = app.rooms.set_alias(&alias, &body.room_id, &auth.user).await;
    if let Err(hearth_rooms::Error::AliasInUse(_)) = &set {
        return Err(MatrixError::new(409, errcode::UNKNOWN, "The alias is taken").into());
    }
    set?;
    Ok(Json(json!({})))
}
