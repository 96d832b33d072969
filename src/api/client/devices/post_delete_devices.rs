//! POST /_matrix/client/v3/delete_devices — Client-Server API, "Device management".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::client::uia::confirm_by_password;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson};

/// The request's body.
#[derive(Deserialize)]
struct Body {
    devices: Vec<OwnedDeviceId>,
}

/// Deletes several devices and ends their sessions.
pub async fn post_delete_devices(
    State(app): State<Arc<App>>,
    auth: Auth,
    OptionalJson(body): OptionalJson<Map<String, Value>>,
) -> Result<Json<Value>> {
    let body: Body = confirm_by_password(&app, &auth, "POST", "/delete_devices", &body).await?;
    auth.handle.delete_devices(&body.devices).await?;
    Ok(Json(json!({})))
}
