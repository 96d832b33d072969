//! POST /_matrix/client/v3/rooms/{roomId}/leave — Client-Server API, "Leaving rooms".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::Membership as RoomMembership;
use hearth_users::Membership;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::server_notices::must_not_decline;
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
    let reason = body.reason.as_deref();
    let room = app.rooms.get(&room_id)?.filter(|room| room.is_decided_here());
    if let Some(room) = &room {
        must_not_decline(&app, room, &auth.user)?;
    }
    let inside = match &room {
        Some(room) => room.membership(&auth.user)? != RoomMembership::None,
        None => false,
    };
    let entry = auth.handle.room(&room_id)?;
    match (room, entry) {
        (Some(room), _) if inside => drop(room.leave(&auth.user, reason).await?),
        // An invitation to a room, or a knock on one, that this server is not in.
        (_, Some(entry)) if matches!(entry.membership, Membership::Invite | Membership::Knock) => {
            let via = super::elsewhere::servers_of_entry(&entry);
            app.rooms
                .leave_remote(&auth.user, &room_id, &via, &entry.event_id, reason)
                .await?;
        }
        (_, Some(entry)) if entry.membership == Membership::Leave => {}
        (Some(room), _) => drop(room.leave(&auth.user, reason).await?),
        (None, _) => return Err(MatrixError::not_found("You are not in this room").into()),
    }
    Ok(Json(json!({})))
}
