//! POST /_synapse/admin/v1/federation/destinations/{destination}/reset_connection — not in the specification; the path
//! that administration tools know.

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedServerName;
use serde_json::{Value, json};

use super::no_such_destination;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

/// Has a server that fails tried again at once.
pub async fn post_reset_connection(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(server): Path<OwnedServerName>,
    OptionalJson(_body): OptionalJson<Value>,
) -> Result<Json<Value>> {
    auth.must_be_admin(&app)?;
    let outbound = &app.federation.outbound;
    let status = outbound.status_of(&server)?;
    let status = status.ok_or_else(|| no_such_destination(&server))?;
    if status.failures == 0 {
        return Err(
            MatrixError::unknown(format!("{server} does not fail: it need not be tried again")).into(),
        );
    }
    outbound.wake(&server);
    Ok(Json(json!({})))
}
