//! PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId} — Server-Server API, "Third-party invites".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::Room;
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Path};
use crate::federation::origin::Signed;
use crate::federation::rooms::own_room;
use crate::ratelimit::Class;

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    #[serde(rename = "type")]
    kind: String,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    state_key: OwnedUserId,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: String,
    third_party_invite: Map<String, Value>,
}

/// Invites a user whose third-party identifier a user of this server has invited before.
pub async fn put_exchange_third_party_invite(
    State(app): State<Arc<App>>,
    Path(room_id): Path<OwnedRoomId>,
    Signed(origin, body): Signed<Body>,
) -> Result<Json<Value>> {
    if body.kind != "m.room.member" || body.content.membership != "invite" || body.room_id != room_id {
        return Err(MatrixError::invalid_param("The event is not an invitation to this room").into());
    }
    app.limits.server(Class::InvitingServer, &origin)?;
    let room = own_room(&app, &origin, &room_id)?;
    if let Some(user) = app.users.get(&body.state_key)? {
        super::count_invitation(&app, &origin, &user)?;
    }
    invite(
        &app,
        &room,
        &body.sender,
        &body.state_key,
        body.content.third_party_invite,
    )
    .await?;
    Ok(Json(json!({})))
}

/// Sends the invitation for the user who asked for it.
pub(super) async fn invite(
    app: &App,
    room: &Room,
    sender: &UserId,
    target: &UserId,
    third_party_invite: Map<String, Value>,
) -> Result<()> {
    if !app.users.is_local(sender) {
        return Err(MatrixError::forbidden(format!("{sender} is not a user of this server")).into());
    }
    let mut content = Map::new();
    content.insert("third_party_invite".to_owned(), Value::Object(third_party_invite));
    match app.users.is_local(target) {
        true => room.invite(sender, target, content, None).await?,
        false => room.invite_remote(sender, target, content).await?,
    };
    Ok(())
}
