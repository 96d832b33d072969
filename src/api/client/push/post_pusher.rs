//! POST /_matrix/client/v3/pushers/set — Client-Server API, "Push Notifications".

use axum::http::StatusCode;
use hearth_core::error::MatrixError;
use hearth_users::{Activation, Pusher, PusherOptions};
use ruma::OwnedDeviceId;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json, or_default};

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    pushkey: Option<String>,
    app_id: Option<String>,
    /// `null` deletes the pusher; it must be there.
    #[serde(default, deserialize_with = "present")]
    kind: Option<Option<String>>,
    app_display_name: Option<String>,
    device_display_name: Option<String>,
    profile_tag: Option<String>,
    lang: Option<String>,
    data: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "or_default")]
    append: bool,
    /// Whether it is switched on (MSC3881).
    #[serde(rename = "org.matrix.msc3881.enabled")]
    enabled: Option<bool>,
    /// The pusher's device, in requests of clients that switch what they have listed (MSC3881).
    #[serde(rename = "org.matrix.msc3881.device_id")]
    device_id: Option<OwnedDeviceId>,
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// Sets, changes or deletes a pusher.
///
/// A new subscription of Web Push answers 201: it has to be activated (MSC4174).
pub async fn post_pusher(auth: Auth, Json(body): Json<Body>) -> Result<(StatusCode, Json<Value>)> {
    let pushkey = needed(body.pushkey, "pushkey")?;
    let app_id = needed(body.app_id, "app_id")?;
    let Some(kind) = needed(body.kind, "kind")? else {
        auth.handle.delete_pusher(&app_id, &pushkey).await?;
        return Ok((StatusCode::OK, Json(json!({}))));
    };
    // The name that it has while the proposal is open.
    let kind = match kind.as_str() {
        "org.matrix.msc4174.webpush" => "webpush".to_owned(),
        _ => kind,
    };
    let device_id = auth
        .device
        .clone()
        .ok_or_else(|| MatrixError::forbidden("Only a device can have a pusher"))?;
    let pusher = Pusher {
        pushkey,
        app_id,
        kind,
        app_display_name: needed(body.app_display_name, "app_display_name")?,
        device_display_name: needed(body.device_display_name, "device_display_name")?,
        profile_tag: body.profile_tag,
        lang: needed(body.lang, "lang")?,
        data: needed(body.data, "data")?,
        device_id,
        ts: 0,
        disabled: false,
        activation: Activation::default(),
    };
    let options = PusherOptions {
        append: body.append,
        enabled: body.enabled,
        device_id: body.device_id,
    };
    let status = match auth.handle.set_pusher(pusher, options).await? {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(json!({}))))
}

fn needed<T>(field: Option<T>, name: &str) -> Result<T, MatrixError> {
    field.ok_or_else(|| MatrixError::missing_param(format!("{name} is missing")))
}
