//! PUT /_matrix/client/unstable/org.matrix.msc4140/rooms/{roomId}/delayed_event/{eventType}/{txnId} — MSC4140,
//! "Scheduling a delayed event".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::Txn;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::schedule::{self, Delaying, Wording};
use crate::app::App;
use crate::client::rooms;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};
use crate::ratelimit::Class;

/// The query.
#[derive(Deserialize)]
pub struct Options {
    ts: Option<u64>,
}

/// The body. `delay` is the older name of `delay_ms`.
#[derive(Deserialize)]
pub struct Body {
    #[serde(alias = "delay")]
    delay_ms: u64,
    state_key: Option<String>,
    content: Box<RawValue>,
}

/// Schedules a message or state event; the same transaction gives the same delayed event.
pub async fn put_delayed_event(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, kind, txn)): Path<(OwnedRoomId, String, String)>,
    Query(options): Query<Options>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    auth.must_not_be_suspended()?;
    auth.count(&app, Class::Send)?;
    let content = body.content.get().as_bytes().to_vec();
    if content.first() != Some(&b'{') {
        return Err(MatrixError::bad_json("content must be an object").into());
    }
    let event = Delaying {
        room_id,
        state_key: body.state_key,
        content: Some(content.into()),
        delay_ms: body.delay_ms,
        timestamp_ms: rooms::claimed_time(&auth, options.ts)?,
        txn: Some(Txn {
            device: rooms::txn_device(&auth),
            scope: format!("delayed_event/{kind}"),
            id: txn,
        }),
        kind,
    };
    schedule::delay(&app, &auth, event, Wording::Body).await
}
