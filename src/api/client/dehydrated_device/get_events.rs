//! GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events — MSC3814, "Rehydrating a
//! device".

use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};

/// The query.
#[derive(Deserialize)]
pub struct Options {
    next_batch: Option<String>,
}

/// A page of the messages to the dehydrated device.
pub async fn get_events(
    auth: Auth,
    Path(device): Path<OwnedDeviceId>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    super::events(&auth, &device, options.next_batch.as_deref())
}
