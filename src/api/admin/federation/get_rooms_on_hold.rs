//! GET /_hearth/admin/v1/federation/rooms_on_hold — this server's own.

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::page;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Query};

/// Which page.
#[derive(Deserialize)]
pub struct Options {
    from: Option<usize>,
    limit: Option<usize>,
}

/// The rooms in which events of other servers are put off because they failed: whose, since when, and until when.
pub async fn get_rooms_on_hold(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    auth.must_be_admin(&app)?;
    let mut rooms = app.federation.inbound.status();
    rooms.retain(hearth_federation::inbound::RoomStatus::is_quarantined);
    rooms.sort_by(|one, other| one.room.cmp(&other.room));
    let total = rooms.len();
    let (rooms, next) = page(rooms, options.from, options.limit);
    let rooms: Vec<Value> = rooms
        .into_iter()
        .map(|room| {
            let origins = room.origins.iter().map(|origin| {
                json!({
                    "origin": origin.origin,
                    "waiting_pdus": origin.waiting,
                    "oldest_received_ts": origin.oldest_ms,
                    "failures": origin.failures,
                    "retry_in_ms": u64::try_from(origin.paused.as_millis()).unwrap_or(u64::MAX),
                })
            });
            json!({ "room_id": room.room, "origins": origins.collect::<Vec<_>>() })
        })
        .collect();
    let mut answer = json!({ "rooms": rooms, "total": total });
    if let Some(next) = next {
        answer["next_token"] = next.into();
    }
    Ok(Json(answer))
}
