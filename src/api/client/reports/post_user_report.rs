//! POST /_matrix/client/v3/users/{userId}/report — Client-Server API, "Reporting content".

use std::sync::Arc;

use axum::extract::State;
use hearth_users::Report;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};
use crate::ratelimit::Class;

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    reason: String,
}

/// Reports a user to the administrators. The answer does not show whether the user exists.
pub async fn post_user_report(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(user): Path<OwnedUserId>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    auth.count(&app, Class::Report)?;
    if app.users.is_local(&user) && app.users.get(&user)?.is_none() {
        return Ok(Json(json!({})));
    }
    let report = Report {
        reporter: auth.user,
        room_id: None,
        event_id: None,
        user_id: Some(user),
        reason: body.reason,
        score: None,
        ts: app.clock.now_ms(),
    };
    app.users.reports().add(report).await?;
    Ok(Json(json!({})))
}
