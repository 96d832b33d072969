//! PUT /_matrix/client/v3/directory/list/room/{roomId} — Client-Server API, "Published room directory".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

#[derive(Default, Deserialize)]
pub struct Body {
    visibility: Option<String>,
}

/// Puts the room into the public directory, or takes it out.
pub async fn put_listing(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    let listed = match body.visibility.as_deref() {
        None | Some("public") => true,
        Some("private") => false,
        Some(_) => return Err(MatrixError::invalid_param("visibility must be public or private").into()),
    };
    if listed {
        auth.must_be_among(&app, app.config.room.publication)?;
    }
    let room = crate::client::rooms::room(&app, &room_id)?;
    if !auth.is_admin(&app) {
        crate::client::rooms::joined_room(&app, &room_id, &auth.user)?;
        room.check_may_send_state(&auth.user, "m.room.canonical_alias")?;
    }
    app.rooms.set_listed(&room, listed).await?;
    Ok(Json(json!({})))
}
