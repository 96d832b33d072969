//! PUT /_matrix/federation/v1/send/{txnId} — Server-Server API, "Transactions".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_core::limits::TXN_ID_MAX_BYTES;
use serde_json::Value;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Path};
use crate::federation::origin::SignedTransaction;

/// Events of rooms, and what there is beside them; answered when all of it is stored.
pub async fn put_send(
    State(app): State<Arc<App>>,
    Path(txn_id): Path<String>,
    SignedTransaction(origin, body): SignedTransaction,
) -> Result<Json<Value>> {
    if txn_id.len() > TXN_ID_MAX_BYTES {
        return Err(MatrixError::invalid_param("The transaction id is too long").into());
    }
    let answer = app
        .federation
        .inbound
        .transaction(&origin, &txn_id, &body)
        .await?;
    Ok(Json(answer))
}
