//! PUT /_matrix/federation/v1/send/{txnId} — Server-Server API, "Transactions".

use std::sync::Arc;

use axum::extract::State;
use serde_json::Value;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Path};
use crate::federation::origin::SignedTransaction;

/// Takes in events and ephemeral data of another server. It answers when all of it is stored; the events are then
/// received in the order of their room.
pub async fn put_send(
    State(app): State<Arc<App>>,
    Path(txn_id): Path<String>,
    SignedTransaction(origin, body): SignedTransaction,
) -> Result<Json<Value>> {
    Ok(Json(
        app.federation
            .inbound
            .transaction(&origin, &txn_id, &body)
            .await?,
    ))
}
