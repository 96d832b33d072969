//! POST /_synapse/admin/v1/send_server_notice — not in the specification; the path that administration tools
//! know. What a notice is: Client-Server API, "Server Notices".

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};

use super::server_notices::{Notice, send_notice};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson};

/// Sends a notice to a user of this server.
pub async fn post_send_server_notice(
    State(app): State<Arc<App>>,
    auth: Auth,
    OptionalJson(notice): OptionalJson<Notice>,
) -> Result<Json<Value>> {
    auth.must_be_admin(&app)?;
    let sent = send_notice(&app, notice, None).await?;
    Ok(Json(json!({ "event_id": sent })))
}
