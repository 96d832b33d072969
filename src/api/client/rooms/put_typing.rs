//! PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId} — Client-Server API, "Typing notifications".

use std::sync::Arc;

use axum::extract::State;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// How long typing lasts where the client does not say.
const TIMEOUT_DEFAULT_MS: u64 = 30_000;

#[derive(Deserialize)]
pub struct Body {
    typing: bool,
    timeout: Option<u64>,
}

/// Says that the user types, or has stopped.
pub async fn put_typing(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, user)): Path<(OwnedRoomId, OwnedUserId)>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    auth.must_be(&user)?;
    let room = super::joined_room(&app, &room_id, &user)?;
    room.set_typing(
        &user,
        body.typing.then(|| body.timeout.unwrap_or(TIMEOUT_DEFAULT_MS)),
    );
    if body.typing {
        auth.acts(&app);
    }
    Ok(Json(json!({})))
}
