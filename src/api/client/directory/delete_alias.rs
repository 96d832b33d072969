//! DELETE /_matrix/client/v3/directory/room/{roomAlias} — Client-Server API, "Room aliases".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::{Membership, NewEvent};
use ruma::OwnedRoomAliasId;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Takes an alias away: its maker may, and who is in the room with the power to set its canonical alias.
pub async fn delete_alias(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(alias): Path<OwnedRoomAliasId>,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    app.check_alias_owner(&auth, &alias)?;
    let found = app.rooms.alias(&alias)?;
    let found = found.ok_or_else(|| MatrixError::not_found("There is no such alias"))?;
    let room = app.rooms.get(&found.room_id)?;
    let powerful = match &room {
        Some(room) => {
            // Power alone is not enough: whoever has left may still have it, and in some rooms everybody has.
            room.membership(&auth.user)? == Membership::Join
                && room
                    .check_may_send_state(&auth.user, "m.room.canonical_alias")
                    .is_ok()
        }
        None => false,
    };
    if found.creator != auth.user && !powerful && !auth.is_admin(&app) {
        return Err(MatrixError::forbidden("You did not make this alias, and have no power over it").into());
    }
    app.rooms.delete_alias(&alias).await?;
    if let (Some(room), true) = (room, powerful) {
        let Some(event) = room.state("m.room.canonical_alias", "")? else {
            return Ok(Json(json!({})));
        };
        let mut content: Value = serde_json::from_slice(event.pdu.content()).unwrap_or_default();
        let before = content.clone();
        if content["alias"] == alias.as_str()
            && let Some(content) = content.as_object_mut()
        {
            content.remove("alias");
        }
        if let Some(list) = content.get_mut("alt_aliases").and_then(Value::as_array_mut) {
            list.retain(|other| other != alias.as_str());
        }
        if content != before {
            let event = NewEvent::state(&auth.user, "m.room.canonical_alias", "", &content);
            // The alias is gone all the same; the state follows where it can.
            drop(room.send(event, None).await);
        }
    }
    Ok(Json(json!({})))
}
