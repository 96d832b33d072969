//! POST /_matrix/client/v3/rooms/{roomId}/report — Client-Server API, "Reporting content".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_users::Report;
use ruma::OwnedRoomId;
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

/// Reports a room to the administrators; the user need not be in it.
pub async fn post_room_report(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    auth.count(&app, Class::Report)?;
    if app.rooms.get(&room_id)?.is_none() {
        return Err(MatrixError::not_found("This room is not known here").into());
    }
    let report = Report {
        reporter: auth.user,
        room_id: Some(room_id),
        event_id: None,
        user_id: None,
        reason: body.reason,
        score: None,
        ts: app.clock.now_ms(),
    };
    app.users.reports().add(report).await?;
    Ok(Json(json!({})))
}
