//! GET /_synapse/admin/v1/federation/destinations/{destination}/rooms — not in the specification; the path that
//! administration tools know.

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedServerName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{no_such_destination, page};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};

/// Which page.
#[derive(Deserialize)]
pub struct Options {
    from: Option<usize>,
    limit: Option<usize>,
    dir: Option<String>,
}

/// The rooms of which a server misses something. What it has got is not noted, so that rooms whose events it all has are
/// not listed.
pub async fn get_destination_rooms(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(server): Path<OwnedServerName>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    auth.must_be_admin(&app)?;
    let rooms = app.federation.outbound.rooms_behind(&server)?;
    let mut rooms = rooms.ok_or_else(|| no_such_destination(&server))?;
    if options.dir.as_deref() == Some("b") {
        rooms.reverse();
    }
    let total = rooms.len();
    let (rooms, next) = page(rooms, options.from, options.limit);
    let rooms: Vec<Value> = rooms
        .into_iter()
        .map(|(room, newest)| json!({ "room_id": room, "stream_ordering": newest }))
        .collect();
    let mut answer = json!({ "rooms": rooms, "total": total });
    if let Some(next) = next {
        answer["next_token"] = next.into();
    }
    Ok(Json(answer))
}
