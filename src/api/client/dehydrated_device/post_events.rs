//! POST /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events — MSC3814 in an earlier form that
//! clients still use: the token is in the body, and they read on until there are no events.

use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

/// The body.
#[derive(Default, Deserialize)]
pub struct Body {
    next_batch: Option<String>,
}

/// A page of the messages to the dehydrated device.
pub async fn post_events(
    auth: Auth,
    Path(device): Path<OwnedDeviceId>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    Ok(Json(super::events(&auth, &device, body.next_batch.as_deref())?.0))
}
