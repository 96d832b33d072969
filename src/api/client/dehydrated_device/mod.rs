//! The dehydrated device (MSC3814).

pub mod delete_dehydrated_device;
pub mod get_dehydrated_device;
pub mod get_events;
pub mod post_events;
pub mod put_dehydrated_device;

use axum::routing::get;
use hearth_core::error::MatrixError;
use hearth_core::limits::TO_DEVICE_PAGE_MAX_MESSAGES;
use hearth_sync::ToDeviceToken;
use ruma::DeviceId;
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::Auth;
use crate::routes::Routes;

/// The name of the feature before it is in the specification.
const FEATURE: &str = "org.matrix.msc3814.v1";

/// The endpoints of this section.
pub fn routes() -> Routes {
    let device = get(get_dehydrated_device::get_dehydrated_device)
        .put(put_dehydrated_device::put_dehydrated_device)
        .delete(delete_dehydrated_device::delete_dehydrated_device);
    Routes::new()
        .unstable(FEATURE, "/dehydrated_device", device)
        .unstable(
            FEATURE,
            "/dehydrated_device/{deviceId}/events",
            get(get_events::get_events).post(post_events::post_events),
        )
}

/// The refusal where the user has no dehydrated device.
fn none() -> MatrixError {
    MatrixError::not_found("You have no dehydrated device")
}

/// A page of the messages to the dehydrated device, after those that a token stands for, and whether it may not be the last.
fn events(auth: &Auth, device: &DeviceId, from: Option<&str>) -> Result<(Value, bool)> {
    let dehydrated = auth.handle.dehydrated_device()?;
    if dehydrated.is_none_or(|known| known.device_id != device) {
        return Err(MatrixError::forbidden("This is not your dehydrated device").into());
    }
    let since = match from.filter(|token| !token.is_empty()) {
        Some(token) => ToDeviceToken::parse(token)?.0,
        None => 0,
    };
    let (events, reached) = auth
        .handle
        .dehydrated_events(device, since, TO_DEVICE_PAGE_MAX_MESSAGES)?;
    let next = ToDeviceToken(reached).to_string();
    let is_full = events.len() >= TO_DEVICE_PAGE_MAX_MESSAGES;
    Ok((json!({ "events": events, "next_batch": next }), is_full))
}
