//! GET /_matrix/client/v3/events — Client-Server API, "Syncing" (deprecated), and "Peeking".

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hearth_sync::{Filter, SyncToken, legacy};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::client::large;
use crate::error::Result;
use crate::extract::{Auth, Json, Query};

/// What the query says.
#[derive(Deserialize)]
pub struct EventsQuery {
    from: Option<String>,
    #[serde(default)]
    timeout: u64,
    room_id: Option<OwnedRoomId>,
}

/// The user's news as one list, or those of one room, which he need not be in where everybody may read it.
pub async fn get_events(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(query): Query<EventsQuery>,
) -> Result<Response> {
    let mut request = super::plain_request(&auth, Some(100), query.timeout)?;
    let from = query.from.as_deref().filter(|from| !from.is_empty());
    if let Some(room) = &query.room_id {
        if let Some(room) = app.rooms.get(room)?
            && app.sync.may_peek(&auth.handle, &room)?
        {
            let device = auth.device.as_deref();
            let peek = app.sync.peek(&auth.handle, device, &room, from, request.timeout);
            return Ok(Json(peek.await?).into_response());
        }
        let filter = json!({ "room": { "rooms": [room], "timeline": { "limit": 100 } } });
        request.filter = Arc::new(Filter::from_value(filter)?);
    }
    let (since, start) = match from {
        Some(from) => (SyncToken::read(&auth.handle, from)?, from.to_owned()),
        // Without a token the stream begins now.
        None => {
            let (now, _place) = large::sync(&app, &mut request).await?;
            (now.next, now.next_batch)
        }
    };
    request.since = Some(since);
    request.events_max = large::EVENTS_MAX;
    let (mut view, place) = large::sync(&app, &mut request).await?;
    let events = legacy::events(&request, &start, &mut view)?;
    Ok(large::respond(events.to_string().into_bytes(), place))
}
