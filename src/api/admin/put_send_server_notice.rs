//! PUT /_synapse/admin/v1/send_server_notice/{txnId} — not in the specification; the path that administration
//! tools know. What a notice is: Client-Server API, "Server Notices".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::Txn;
use serde_json::{Value, json};

use super::server_notices::{Notice, send_notice};
use crate::app::App;
use crate::client::rooms::txn_device;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

/// Sends a notice to a user of this server; the same transaction gives the same event.
pub async fn put_send_server_notice(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(id): Path<String>,
    OptionalJson(notice): OptionalJson<Notice>,
) -> Result<Json<Value>> {
    auth.must_be_admin(&app)?;
    let txn = Txn {
        // All notices have one sender, so that the administrator is named here.
        device: format!("{} {}", auth.user, txn_device(&auth)),
        scope: "send_server_notice".to_owned(),
        id,
    };
    let sent = send_notice(&app, notice, Some(txn)).await?;
    Ok(Json(json!({ "event_id": sent })))
}
