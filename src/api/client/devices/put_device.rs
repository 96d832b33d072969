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

/// Names one of the user's devices. Without a name in the body nothing changes. An application service makes the device
/// so, if there is none.
pub async fn put_device(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(id): Path<OwnedDeviceId>,
    Json(body): Json<Body>,
) -> Result<(StatusCode, Json<Value>)> {
    let is_there = auth.handle.device(&id)?.is_some();
    let name = body.display_name.as_deref();
    if !is_there && auth.appservice.is_some() {
        auth.count(&app, Class::Login)?;
        let status = match auth.handle.put_device(&id, name).await? {
            true => StatusCode::CREATED,
            false => StatusCode::OK,
        };
        return Ok((status, Json(json!({}))));
    }
    if !is_there {
        return Err(MatrixError::not_found("You have no such device").into());
    }
    if name.is_some() {
        auth.handle.rename_device(&id, name).await?;
    }
    Ok((StatusCode::OK, Json(json!({}))))
}
