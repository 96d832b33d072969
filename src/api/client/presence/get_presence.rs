//! GET /_matrix/client/v3/presence/{userId}/status — Client-Server API, "Presence".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_users::PresenceInfo;
use ruma::OwnedUserId;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Whether a user is there; for users who share a room with him.
pub async fn get_presence(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(user): Path<OwnedUserId>,
) -> Result<Json<Value>> {
    if auth.user != user {
        if app.users.is_local(&user) && app.users.get(&user)?.is_none() {
            return Err(MatrixError::not_found("Nothing is known of this user's presence").into());
        }
        if !app.room_links.share_a_room(&auth.user, &user) {
            let sentence = "You share no room with this user";
            return Err(MatrixError::forbidden(sentence).into());
        }
    }
    let info = app.users.presence().get(&user);
    Ok(Json(presence_json(&info)))
}

fn presence_json(info: &PresenceInfo) -> Value {
    let mut json = json!({ "presence": info.state.name() });
    if let Some(status) = &info.status_msg {
        json["status_msg"] = status.as_str().into();
    }
    if let Some(ago) = info.last_active_ago_ms {
        json["last_active_ago"] = ago.into();
    }
    json["currently_active"] = info.currently_active.into();
    json
}
