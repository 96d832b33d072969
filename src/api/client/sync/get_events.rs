//! GET /_matrix/client/v3/events — Client-Server API, "Syncing" (deprecated), and "Peeking".

use std::sync::Arc;

use axum::extract::State;
use hearth_sync::{Filter, SyncToken, legacy};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
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

/// The user's news as one list.
///
/// NOTSPEC: with `room_id`, a room that the user is not in gives no events instead of those that
/// everybody may read: nothing peeks this way any more.
pub async fn get_events(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(query): Query<EventsQuery>,
) -> Result<Json<Value>> {
    let mut request = super::plain_request(&auth, Some(100), query.timeout)?;
    if let Some(room) = &query.room_id {
        let filter = json!({ "room": { "rooms": [room], "timeline": { "limit": 100 } } });
        request.filter = Arc::new(Filter::from_value(filter)?);
    }
    let (since, start) = match query.from.filter(|from| !from.is_empty()) {
        Some(from) => (SyncToken::read(&auth.handle, &from)?, from),
        // Without a token the stream begins now.
        None => {
            let now = app.sync.sync(&request).await?;
            (now.next, now.next_batch)
        }
    };
    request.since = Some(since);
    let mut view = app.sync.sync(&request).await?;
    Ok(Json(legacy::events(&request, &start, &mut view)?))
}
