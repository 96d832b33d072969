//! POST /_matrix/client/v3/rooms/{roomId}/report/{eventId} — Client-Server API, "Reporting content".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_users::Report;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};
use crate::ratelimit::Class;

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    reason: Option<String>,
    score: Option<i64>,
}

/// Reports an event to the administrators; whoever reports must be able to see it.
pub async fn post_event_report(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    auth.count(&app, Class::Report)?;
    let not_found = || MatrixError::not_found("There is no such event, or you may not see it");
    let room = app.rooms.get(&room_id)?.ok_or_else(not_found)?;
    let event = room.shown_event(&event_id)?.ok_or_else(not_found)?;
    let mut viewer = room.viewer(&auth.user)?;
    if viewer.membership() != hearth_rooms::Membership::Join || !viewer.may_see(&event)? {
        return Err(not_found().into());
    }
    let report = Report {
        reporter: auth.user,
        room_id: Some(room_id),
        event_id: Some(event_id),
        user_id: Some(event.pdu.sender().to_owned()),
        reason: body.reason.unwrap_or_default(),
        score: body.score,
        ts: app.clock.now_ms(),
    };
    app.users.reports().add(report).await?;
    Ok(Json(json!({})))
}
