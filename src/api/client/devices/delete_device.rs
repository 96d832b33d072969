//! DELETE /_matrix/client/v3/devices/{deviceId} — Client-Server API, "Device management".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedDeviceId;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::client::uia::confirm_by_password;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

/// Deletes a device and ends its session; one that is not there counts as deleted.
pub async fn delete_device(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(id): Path<OwnedDeviceId>,
    OptionalJson(body): OptionalJson<Map<String, Value>>,
) -> Result<Json<Value>> {
    let path = format!("/devices/{id}");
    let _: Map<String, Value> = confirm_by_password(&app, &auth, "DELETE", &path, &body).await?;
    auth.handle.delete_devices(&[id]).await?;
    Ok(Json(json!({})))
}
