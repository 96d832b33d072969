//! PUT /_matrix/client/v3/presence/{userId}/status — Client-Server API, "Presence".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_users::PresenceState;
use ruma::{DeviceId, OwnedUserId};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    presence: String,
    /// Left out it stays; null takes it away.
    #[serde(default, deserialize_with = "present")]
    status_msg: Option<Option<String>>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Says how present the user is on this device.
pub async fn put_presence(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(user): Path<OwnedUserId>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    auth.must_be(&user)?;
    let Some(state) = PresenceState::parse(&body.presence) else {
        let sentence = format!("There is no presence {:?}", body.presence);
        return Err(MatrixError::invalid_param(sentence).into());
    };
    if app.config.presence {
        // An application service that acts without a device counts as one device of its own.
        let none = <&DeviceId>::from("");
        let device = auth.device.as_deref().unwrap_or(none);
        auth.handle.set_presence(device, state, body.status_msg).await?;
    }
    Ok(Json(json!({})))
}
