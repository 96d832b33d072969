//! PUT /_matrix/client/v3/devices/{deviceId} — Client-Server API, "Device management".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use http::StatusCode;
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};
use crate::ratelimit::Class;

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    display_name: Option<String>,
}

/// Names one of the user's devices. Without a name in the body nothing changes. For an application service a device
/// that does not exist is made.
pub async fn put_device(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(id): Path<OwnedDeviceId>,
    Json(body): Json<Body>,
) -> Result<(StatusCode, Json<Value>)> {
    let exists = auth.handle.device(&id)?.is_some();
    if !exists && auth.appservice.is_none() {
        return Err(MatrixError::not_found("You have no such device").into());
    }
    if !exists {
        auth.count(&app, Class::Login)?;
        let made = auth.handle.make_device(&id, body.display_name.as_deref()).await?;
        let status = if made { StatusCode::CREATED } else { StatusCode::OK };
        return Ok((status, Json(json!({}))));
    }
    if let Some(name) = &body.display_name {
        auth.handle.rename_device(&id, Some(name)).await?;
    }
    Ok((StatusCode::OK, Json(json!({}))))
}
