//! GET /_matrix/client/v3/pushers — Client-Server API, "Push Notifications".

use hearth_users::Activation;
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// The user's pushers.
pub async fn get_pushers(auth: Auth) -> Result<Json<Value>> {
    let pushers: Vec<Value> = auth
        .handle
        .pushers()?
        .into_iter()
        .map(|pusher| {
            let mut shown = json!({
                "pushkey": pusher.pushkey,
                "kind": pusher.kind,
                "app_id": pusher.app_id,
                "app_display_name": pusher.app_display_name,
                "device_display_name": pusher.device_display_name,
                "lang": pusher.lang,
                "data": pusher.data,
                "org.matrix.msc3881.enabled": !pusher.disabled,
                "org.matrix.msc3881.device_id": pusher.device_id,
            });
            if pusher.is_web_push() {
                shown["activated"] = json!(pusher.activation == Activation::Done);
            }
            if let Some(tag) = pusher.profile_tag {
                shown["profile_tag"] = json!(tag);
            }
            shown
        })
        .collect();
    Ok(Json(json!({ "pushers": pushers })))
}
