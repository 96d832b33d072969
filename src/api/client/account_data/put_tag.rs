//! PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag} — Client-Server API, "Room tagging".

use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

/// The request's body: where the room stands under the tag, and whatever else the client keeps.
#[derive(Deserialize)]
pub struct Body {
    /// Kept as it was written: `1` does not become `1.0`.
    order: Option<Number>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Gives a room a tag.
pub async fn put_tag(
    auth: Auth,
    Path((user, room, tag)): Path<(OwnedUserId, OwnedRoomId, String)>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    auth.must_be(&user)?;
    let mut content = body.rest;
    if let Some(order) = body.order {
        content.insert("order".into(), Value::Number(order));
    }
    auth.handle.set_tag(&room, &tag, content).await?;
    Ok(Json(json!({})))
}
