//! POST /_matrix/client/v4/sync — MSC4186 as it was merged.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_sync::sliding::{List, RoomConfig, StateRule, Wire};
use ruma::OwnedRoomId;
use serde::Deserialize;

use super::body::{self, Asked, ExtensionsBody, Filters};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, or_default};

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    conn_id: Option<String>,
    pos: Option<String>,
    #[serde(default)]
    timeout: u64,
    set_presence: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    lists: BTreeMap<String, ListBody>,
    #[serde(default, deserialize_with = "or_default")]
    room_subscriptions: BTreeMap<OwnedRoomId, RoomBody>,
    #[serde(default, deserialize_with = "or_default")]
    extensions: ExtensionsBody,
}

#[derive(Deserialize)]
struct RoomBody {
    timeline_limit: u64,
    required_state: StateRule,
}

#[derive(Deserialize)]
struct ListBody {
    range: Option<(u64, u64)>,
    filters: Option<Filters>,
    #[serde(flatten)]
    room: RoomBody,
}

/// The news within the client's windows; waits for some.
pub async fn post_sync_v4(
    State(app): State<Arc<App>>,
    auth: Auth,
    Json(body): Json<Body>,
) -> Result<Response> {
    let asked = Asked {
        pos: body.pos,
        timeout_ms: body.timeout,
        set_presence: body.set_presence,
        conn_id: body.conn_id,
        lists: body::read_all(body.lists, list)?,
        subscriptions: body::read_all(body.room_subscriptions, config)?,
        extensions: body.extensions,
    };
    body::answer(&app, auth, Wire::V4, asked).await
}

fn list(body: ListBody) -> Result<List> {
    Ok(List {
        ranges: body.range.map(|range| body::ranges(vec![range])).transpose()?,
        config: config(body.room)?,
        filter: body.filters.unwrap_or_default().into_filter(),
    })
}

fn config(body: RoomBody) -> Result<RoomConfig> {
    body::config(body.timeline_limit, body.required_state)
}
