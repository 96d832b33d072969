//! The answer to a login or a registration, and what both read of the client.

use hearth_core::error::{MatrixError, errcode};
use hearth_users::{Login, User};
use http::HeaderMap;
use http::header::USER_AGENT;
use ruma::OwnedDeviceId;
use serde_json::{Map, Value};

use crate::app::App;
use crate::error::Result;
use crate::extract::Address;
use crate::well_known::get_client;

/// The device that a client wants to be.
#[derive(Debug, Default)]
pub(crate) struct Device {
    /// The device's id, if the client has one.
    pub id: Option<OwnedDeviceId>,
    /// The name of a new device.
    pub display_name: Option<String>,
    /// Whether the client can refresh tokens.
    pub refreshable: bool,
}

/// Begins a session and says so to the client.
pub(crate) async fn logged_in(
    app: &App,
    user: &User,
    device: Device,
    address: Address,
    headers: &HeaderMap,
) -> Result<Map<String, Value>> {
    let account = user.account()?;
    if account.locked {
        let sentence = "This account has been locked";
        let error = MatrixError::new(401, errcode::USER_LOCKED, sentence);
        return Err(error.with("soft_logout", true).into());
    }
    let user_agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    let login = Login {
        device_id: device.id,
        initial_display_name: device.display_name,
        refreshable: device.refreshable,
        ip: address.0.map(|ip| ip.to_string()),
        user_agent: user_agent.map(str::to_owned),
    };
    let tokens = user.login(login).await?;
    let mut answer = Map::new();
    answer.insert("user_id".into(), user.id().as_str().into());
    answer.insert("home_server".into(), app.server_name.as_str().into());
    answer.insert("device_id".into(), tokens.device_id.as_str().into());
    answer.insert("access_token".into(), tokens.access_token.into());
    if let Some(refresh_token) = tokens.refresh_token {
        answer.insert("refresh_token".into(), refresh_token.into());
    }
    if let Some(ms) = tokens.expires_in_ms {
        answer.insert("expires_in_ms".into(), ms.into());
    }
    // Only an address that the operator chose is worth sending a client to.
    if app.config.public_base_url.is_some() {
        answer.insert("well_known".into(), get_client::document(app).into());
    }
    Ok(answer)
}
