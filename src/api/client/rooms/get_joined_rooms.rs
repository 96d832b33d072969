//! GET /_matrix/client/v3/joined_rooms — Client-Server API, "Room membership".

use hearth_users::Membership;
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// The rooms that the user is in.
pub async fn get_joined_rooms(auth: Auth) -> Result<Json<Value>> {
    let rooms: Vec<_> = auth
        .handle
        .rooms(&[Membership::Join])?
        .into_iter()
        .map(|entry| entry.room_id)
        .collect();
    Ok(Json(json!({ "joined_rooms": rooms })))
}
