//! GET /_matrix/client/v3/capabilities — Client-Server API, "Capabilities negotiation".

use std::sync::Arc;

use axum::extract::State;
use hearth_events::Rules;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json};

/// Says what this server lets the asking user do.
pub async fn get_capabilities(State(app): State<Arc<App>>, auth: Auth) -> Result<Json<Value>> {
    let stability = |rules: &Rules| if rules.stable { "stable" } else { "unstable" };
    let available: Map<String, Value> = Rules::all()
        .iter()
        .map(|rules| (rules.version.to_string(), stability(rules).into()))
        .collect();
    // Both are confirmed by the password, which accounts of application services lack.
    let has_password = auth.account.has_password();
    let web_push = json!({ "enabled": true, "vapid": app.web_push_key });
    let mut capabilities = json!({
        "m.change_password": { "enabled": has_password },
        "m.room_versions": { "default": app.config.default_room_version, "available": available },
        "m.set_displayname": { "enabled": true },
        "m.set_avatar_url": { "enabled": true },
        "m.profile_fields": { "enabled": true },
        "m.3pid_changes": { "enabled": false },
        "m.get_login_token": { "enabled": has_password },
        "m.forget_forced_upon_leave": { "enabled": false },
        "m.webpush": web_push,
        "org.matrix.msc4174.webpush": web_push,
        "org.matrix.msc4140.delayed_events": {
            "max_delay_ms": app.config.experimental.delayed_events_max_seconds.saturating_mul(1000),
            "max_scheduled": app.config.experimental.delayed_events_per_user,
        },
    });
    // The specification has this one left out where both would be false.
    if auth.is_admin(&app) {
        capabilities["m.account_moderation"] = json!({ "suspend": true, "lock": true });
    }
    Ok(Json(json!({ "capabilities": capabilities })))
}
