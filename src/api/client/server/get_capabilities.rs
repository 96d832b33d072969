//! GET /_matrix/client/v3/capabilities — Client-Server API, "Capabilities negotiation".

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json};

/// The room versions that this server can create and join.
const ROOM_VERSIONS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

/// Says what this server lets the asking user do.
pub async fn get_capabilities(State(app): State<Arc<App>>, auth: Auth) -> Result<Json<Value>> {
    let available: Map<String, Value> = ROOM_VERSIONS
        .iter()
        .map(|version| ((*version).to_owned(), "stable".into()))
        .collect();
    let mut capabilities = json!({
        "m.change_password": { "enabled": true },
        "m.room_versions": { "default": app.config.default_room_version, "available": available },
        "m.set_displayname": { "enabled": true },
        "m.set_avatar_url": { "enabled": true },
        "m.profile_fields": { "enabled": true },
        "m.3pid_changes": { "enabled": false },
        "m.get_login_token": { "enabled": true },
        "m.forget_forced_upon_leave": { "enabled": false },
    });
    // The specification has this one left out where both would be false.
    if auth.is_admin(&app) {
        capabilities["m.account_moderation"] = json!({ "suspend": true, "lock": true });
    }
    Ok(Json(json!({ "capabilities": capabilities })))
}
