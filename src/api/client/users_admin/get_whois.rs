//! GET /_matrix/client/v3/admin/whois/{userId} — Client-Server API, "Server administration".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedUserId;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// From where a user's sessions were last used; for the user and for administrators.
pub async fn get_whois(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(user): Path<OwnedUserId>,
) -> Result<Json<Value>> {
    if auth.user != user {
        auth.must_be_admin(&app)?;
    }
    if !app.users.is_local(&user) {
        return Err(MatrixError::invalid_param("User does not belong to the local server.").into());
    }
    let mut devices = Map::new();
    for device in app.user(&user)?.devices()? {
        let mut connection = Map::new();
        if let Some(ip) = device.last_seen_ip {
            connection.insert("ip".into(), ip.into());
        }
        if let Some(ts) = device.last_seen_ts {
            connection.insert("last_seen".into(), ts.into());
        }
        if let Some(user_agent) = device.user_agent {
            connection.insert("user_agent".into(), user_agent.into());
        }
        let sessions = json!({ "sessions": [{ "connections": [connection] }] });
        devices.insert(device.device_id.to_string(), sessions);
    }
    Ok(Json(json!({ "user_id": user, "devices": devices })))
}
