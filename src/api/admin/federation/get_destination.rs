//! GET /_synapse/admin/v1/federation/destinations/{destination} — not in the specification; the path that administration
//! tools know.

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedServerName;
use serde_json::Value;

use super::{no_such_destination, render};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// One server to which something was sent.
pub async fn get_destination(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(server): Path<OwnedServerName>,
) -> Result<Json<Value>> {
    auth.must_be_admin(&app)?;
    let status = app.federation.outbound.status_of(&server)?;
    let status = status.ok_or_else(|| no_such_destination(&server))?;
    Ok(Json(render(&status)))
}
