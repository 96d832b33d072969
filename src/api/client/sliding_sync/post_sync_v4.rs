//! POST /_matrix/client/v4/sync — MSC4186 as it was merged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use hearth_core::error::MatrixError;
use hearth_sync::sliding::{self, List, Request, RequiredState, RoomConfig, StateRule, Wire};
use ruma::OwnedRoomId;
use serde::Deserialize;

use super::body::{self, Bounds, ExtensionsBody, Filters};
use crate::app::App;
use crate::client::sync::{json_text, presence};
use crate::error::Result;
use crate::extract::{Auth, Json};

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    conn_id: Option<String>,
    pos: Option<String>,
    #[serde(default)]
    timeout: u64,
    set_presence: Option<String>,
    #[serde(default)]
    lists: BTreeMap<String, ListBody>,
    #[serde(default)]
    room_subscriptions: BTreeMap<OwnedRoomId, RoomBody>,
    #[serde(default)]
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
    let conn_id = body.conn_id.unwrap_or_default();
    body::check(&conn_id, &body.lists, &body.room_subscriptions, Bounds::Merged)?;
    let mut lists = BTreeMap::new();
    for (name, list) in body.lists {
        let list = List {
            ranges: list.range.map(|range| body::ranges(vec![range])).transpose()?,
            config: config(list.room)?,
            filter: list.filters.unwrap_or_default().into_filter(),
        };
        lists.insert(name, list);
    }
    let mut subscriptions = BTreeMap::new();
    for (room, subscription) in body.room_subscriptions {
        subscriptions.insert(room, config(subscription)?);
    }
    let request = Request {
        user: auth.handle,
        device: auth.device,
        conn_id,
        pos: body.pos.filter(|pos| !pos.is_empty()),
        timeout: Duration::from_millis(body.timeout),
        set_presence: presence(body.set_presence.as_deref())?,
        lists,
        subscriptions,
        extensions: body.extensions.into_extensions(),
        with_unread: false,
    };
    let mut answer = app.sync.sliding_sync(&request).await?;
    let text = sliding::render(Wire::V4, request.device.as_deref(), &mut answer)?;
    Ok(json_text(text))
}

fn config(body: RoomBody) -> Result<RoomConfig> {
    let rule = body.required_state;
    if rule.include.len() + rule.exclude.len() > body::STATE_PATTERNS_MAX {
        return Err(MatrixError::invalid_param("required_state has at most 1000 entries").into());
    }
    Ok(RoomConfig {
        timeline_limit: body::timeline_limit(body.timeline_limit),
        required_state: RequiredState::of(rule),
    })
}
