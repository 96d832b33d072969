//! POST /_matrix/client/v3/rooms/{roomId}/leave — Client-Server API, "Leaving rooms".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

#[derive(Default, Deserialize)]
pub struct Body {
    reason: Option<String>,
}

/// Leaves a room, declines an invitation or takes a knock back.
pub async fn post_leave(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    super::room(&app, &room_id)?
        .leave(&auth.user, body.reason.as_deref())
        .await?;
    Ok(Json(json!({})))
}
