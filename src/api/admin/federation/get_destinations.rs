//! GET /_synapse/admin/v1/federation/destinations — not in the specification; the path that administration tools know.

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_federation::outbound::DestinationStatus;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{page, render};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Query};

/// What is listed, and how.
#[derive(Deserialize)]
pub struct Options {
    from: Option<usize>,
    limit: Option<usize>,
    order_by: Option<String>,
    dir: Option<String>,
    /// A part of the name.
    destination: Option<String>,
}

/// The servers to which something was sent, with what waits for them and how they fail.
pub async fn get_destinations(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    auth.must_be_admin(&app)?;
    let key: fn(&DestinationStatus) -> u64 = match options.order_by.as_deref() {
        None | Some("destination" | "last_successful_stream_ordering") => |_| 0,
        Some("retry_last_ts") => |status| status.tried_ms.unwrap_or(0),
        Some("retry_interval") => |status| status.pause_ms,
        Some("failure_ts") => |status| status.failing_since_ms.unwrap_or(0),
        Some(other) => {
            return Err(MatrixError::invalid_param(format!("order_by cannot be {other}")).into());
        }
    };
    let is_backwards = match options.dir.as_deref() {
        None | Some("f") => false,
        Some("b") => true,
        Some(_) => return Err(MatrixError::invalid_param("dir must be f or b").into()),
    };
    let outbound = &app.federation.outbound;
    let mut found = Vec::new();
    for server in outbound.known_servers()? {
        let wanted = options.destination.as_deref();
        if wanted.is_none_or(|part| server.as_str().contains(&part.to_lowercase())) {
            found.extend(outbound.status_of(&server)?);
        }
    }
    // They come in the order of their names, which stays among equals.
    found.sort_by_key(key);
    if is_backwards {
        found.reverse();
    }
    let total = found.len();
    let (found, next) = page(found, options.from, options.limit);
    let found: Vec<Value> = found.iter().map(render).collect();
    let mut answer = json!({ "destinations": found, "total": total });
    if let Some(next) = next {
        answer["next_token"] = next.into();
    }
    Ok(Json(answer))
}
