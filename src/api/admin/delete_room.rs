//! DELETE /_synapse/admin/v1/rooms/{roomId} — not in the specification; the path that administration tools know.

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

/// What the body says, as far as something else than a whole removal may be asked for.
#[derive(Deserialize)]
pub struct Body {
    purge: Option<bool>,
    block: Option<bool>,
    new_room_user_id: Option<OwnedUserId>,
}

impl Body {
    /// Refuses what is not done here: nobody is to lose a room that he asked to keep, or to believe one blocked.
    fn check(&self) -> Result<(), MatrixError> {
        let refused = if self.purge == Some(false) {
            "A room is always removed with its history here; purge cannot be false"
        } else if self.block == Some(true) {
            "Rooms cannot be blocked here; block cannot be true"
        } else if self.new_room_user_id.is_some() {
            "No room is made in place of the removed one here; leave new_room_user_id out"
        } else {
            return Ok(());
        };
        Err(MatrixError::invalid_param(refused))
    }
}

/// Removes a room from this server: its users leave, and everything stored of it goes.
pub async fn delete_room(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    auth.must_be_admin(&app)?;
    body.check()?;
    let purged = app.rooms.purge(&room_id).await?;
    Ok(Json(json!({
        "kicked_users": purged.kicked,
        "failed_to_kick_users": [],
        "local_aliases": purged.aliases,
        "new_room_id": null,
    })))
}
