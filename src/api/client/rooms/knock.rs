//! POST /_matrix/client/v3/knock/{roomIdOrAlias} — Client-Server API, "Knocking on rooms".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedRoomOrAliasId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path, Query};
use crate::ratelimit::Class;

use super::elsewhere::{Via, reach};

#[derive(Default, Deserialize)]
pub struct Body {
    reason: Option<String>,
}

/// Asks to be let into a room.
pub async fn post_knock(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(target): Path<OwnedRoomOrAliasId>,
    Query(via): Query<Via>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.count(&app, Class::Join)?;
    let reach = reach(&app, &auth, &target, via).await?;
    let room_id = reach.room_id;
    let mut profile = super::member_profile(&app, &auth.user)?;
    if let Some(room) = app.rooms.get(&room_id)?.filter(|room| room.is_decided_here()) {
        room.knock(&auth.user, profile, body.reason.as_deref()).await?;
    } else {
        profile.extend(body.reason.map(|reason| ("reason".to_owned(), json!(reason))));
        app.rooms
            .knock_remote(&auth.user, &room_id, &reach.via, profile)
            .await?;
    }
    Ok(Json(json!({ "room_id": room_id })))
}
