//! POST /_matrix/federation/v1/get_missing_events/{roomId} — Server-Server API, "Backfilling and retrieving missing
//! events".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::Missing;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;

use crate::app::App;
use crate::error::Result;
use crate::extract::Path;
use crate::federation::origin::Signed;
use crate::federation::rooms::shared_room;
use crate::federation::wire::Object;

/// How many events there are without a limit; set by the specification.
const DEFAULT_LIMIT: u64 = 10;

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    earliest_events: Vec<OwnedEventId>,
    latest_events: Vec<OwnedEventId>,
    limit: Option<u64>,
    #[serde(default)]
    min_depth: i64,
}

/// The events before some that the asking server lacks, oldest first.
pub async fn post_get_missing_events(
    State(app): State<Arc<App>>,
    Path(room_id): Path<OwnedRoomId>,
    Signed(origin, body): Signed<Body>,
) -> Result<Object> {
    let room = shared_room(&app, &origin, &room_id)?;
    let events = room.apart(move |room| {
        let wanted = Missing {
            earliest: &body.earliest_events,
            latest: &body.latest_events,
            limit: usize::try_from(body.limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(usize::MAX),
            min_depth: u64::try_from(body.min_depth).unwrap_or(0),
        };
        room.missing_events(&origin, &wanted)
    });
    Ok(Object::new().events("events", &events.await?))
}
