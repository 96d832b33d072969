//! DELETE /_synapse/admin/v1/rooms/{roomId} — not in the specification; the path that administration tools know.

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

/// Removes a room from this server: its users leave, and everything stored of it goes.
pub async fn delete_room(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    OptionalJson(_body): OptionalJson<Value>,
) -> Result<Json<Value>> {
    auth.must_be_admin(&app)?;
    let purged = app.rooms.purge(&room_id).await?;
    Ok(Json(json!({
        "kicked_users": purged.kicked,
        "failed_to_kick_users": [],
        "local_aliases": purged.aliases,
        "new_room_id": null,
    })))
}
