//! PUT /_matrix/client/v3/devices/{deviceId} — Client-Server API, "Device management".

use hearth_core::error::MatrixError;
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    display_name: Option<String>,
}

/// Names one of the user's devices. Without a name in the body nothing changes.
// NOTSPEC: an application service's PUT of a device that does not exist would make it (v1.17,
// MSC4190); that comes with the encryption issue, which is what bridges need it for.
pub async fn put_device(
    auth: Auth,
    Path(id): Path<OwnedDeviceId>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    if auth.handle.device(&id)?.is_none() {
        return Err(MatrixError::not_found("You have no such device").into());
    }
    if let Some(name) = &body.display_name {
        auth.handle.rename_device(&id, Some(name)).await?;
    }
    Ok(Json(json!({})))
}
