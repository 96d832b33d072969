//! GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events — MSC3814, "Rehydrating a
//! device".

use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};

/// The query. What is `from` was `next_batch` in an earlier form of the proposal.
#[derive(Deserialize)]
pub struct Options {
    #[serde(alias = "next_batch")]
    from: Option<String>,
}

/// A page of the messages to the dehydrated device. Clients read on while there is a `next_batch`.
pub async fn get_events(
    auth: Auth,
    Path(device): Path<OwnedDeviceId>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let (mut page, is_full) = super::events(&auth, &device, options.from.as_deref())?;
    if let Some(page) = page.as_object_mut().filter(|_| !is_full) {
        page.remove("next_batch");
    }
    Ok(Json(page))
}
